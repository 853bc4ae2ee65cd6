"""Fixtures for all tests: the real Carvana photos, where they are available, and a tiny drawn data set."""

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from carmask.limits import usable_cpus
from tiny_dataset import write_tiny_dataset

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# No deadlines: a busy machine must not fail a test. Speed is measured by the benchmarks.
# Fifty examples of a property, where a test does not say otherwise.
settings.register_profile("carmask", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("carmask")

# Files whose tests take longest, in this order. Started last, one of them would keep a single worker busy.
LONG_FILES = (
    *("test_cluster.py", "test_distributed.py", "test_train_step.py", "test_graph.py", "test_privacy.py"),
    *("test_export.py", "test_kill.py", "test_stores.py", "test_resume.py", "test_answers.py"),
    *("test_fine_tuning.py", "test_cli.py", "test_limits.py", "test_predict_resume.py", "test_hostile_folders.py"),
    *("test_page.py", "test_openapi.py", "test_page_downloads.py", "test_lifetime.py", "test_core_install.py"),
    *("test_two_machines.py", "test_engines.py", "test_experiments.py", "test_page_look.py", "test_fixed.py"),
    *("test_processes.py", "test_page_errors.py", "test_segmenter.py", "test_carstudio.py", "test_page_editor.py"),
    *("test_train_command.py", "test_consoles.py", "test_page_access.py", "test_page_axe.py", "test_bad_video.py"),
    *("test_distribution.py", "test_live.py", "test_video.py", "test_training.py", "test_gpu_folder.py"),
)


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are CPUs, because many tests wait: for timeouts, for a browser, for processes."""
    return usable_cpus() + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect without garbage collection, which takes half of the time, and leave what was made out of later ones."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the long files."""
    place_of = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: place_of.get(item.path.name, len(LONG_FILES)))


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep temporary files in pytest's own folder, which removes them: processes that a test kills leave theirs."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tmp"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", None)
        yield


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no curves at the end of each training, which takes a second. Those of the fixture `finished` are drawn."""
    if loggers := sys.modules.get("carmask.training.loggers"):  # otherwise no test module trains in this process
        monkeypatch.setattr(loggers, "draw_curves", lambda _history: b"")


@pytest.fixture(scope="session")
def carvana() -> Path:
    """Folder of real Carvana photos and masks; tests that need them are skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "carvana"
    folder = Path(os.environ.get("CARMASK_CARVANA", default))
    if not (folder / "train_masks").is_dir():
        pytest.skip(f"no Carvana photos at {folder}; set CARMASK_CARVANA to their folder")
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in Carvana's layout, six drawn cars with four views each, 60 x 90 px. Do not change it."""
    root = tmp_path_factory.mktemp("tiny")
    write_tiny_dataset(root)
    return root


@pytest.fixture(scope="module")
def chromium() -> "Iterator[Browser]":
    """A real browser; tests that need it are skipped where it is absent."""
    playwright_api = pytest.importorskip("playwright.sync_api", reason="the page is not tested: no Playwright")
    # The shell, where there is one, takes two thirds of the computing time: it has no windows that nobody sees.
    executable = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if executable is None:
        pytest.skip("the page is not tested: no chromium here (apt-get install chromium-headless-shell)")
    with playwright_api.sync_playwright() as playwright:
        # Chromium's own sandbox cannot be had by root, as whom containers run; a GPU would only be imitated.
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
