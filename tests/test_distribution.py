"""The wheel: what is in it, and that a user's type checker reads its annotations."""

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import pytest

from test_core_install import link_files

ROOT = Path(__file__).parents[1]
RIGHT = """
from pathlib import Path
import numpy as np
from numpy.typing import NDArray
from carmask import Result, Segmenter

segmenter = Segmenter.load()
result: Result = segmenter(Path("car.jpg"))
mask: NDArray[np.bool_] = result.mask
coverage: float = result.coverage
"""
WRONG = """
from carmask import Segmenter

text: str = Segmenter.load()("car.jpg").coverage
Segmenter.load().segment_all()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, "wheel", folder)
    return next(folder.glob("*.whl"))


@pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling is not installed")
def test_the_source_distribution_gives_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    build(ROOT, "sdist", tmp_path)
    shutil.unpack_archive(next(tmp_path.glob("*.tar.gz")), tmp_path, filter="data")
    build(next(tmp_path.glob("carmask-*/")), "wheel", tmp_path)
    assert digests(tmp_path / wheel.name) == digests(wheel)


def build(folder: Path, what: str, out: Path) -> None:
    program = f"from hatchling.build import build_{what}; build_{what}({str(out)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, capture_output=True)


def digests(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


@pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling is not installed")
def test_a_type_checker_reads_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = next(environment.glob("lib/*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        # The weights are large and no annotations.
        archive.extractall(packages, [name for name in names if "/weights/" not in name])
    assert "carmask/py.typed" in names
    assert any(name.startswith("carmask/weights/") for name in names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "gpu"))]
    for name in ("numpy", "pydantic", "pydantic_core", "typing_extensions"):
        link_files(distribution(name), packages)
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--python-executable"]
    command += [str(environment / "bin" / "python"), "right.py", "wrong.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "right.py" not in done.stdout
    assert [done.stdout.count(f"[{code}]") for code in ("assignment", "attr-defined")] == [1, 1], done.stdout
