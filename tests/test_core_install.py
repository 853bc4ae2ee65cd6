"""What works after `pip install carmask`, in processes that find the core's packages and none of the extras."""

import inspect
import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

import carmask

ROOT = Path(carmask.__file__).parent
HEAVY = {"numpy", "cv2", "PIL", "torch", "openvino", "onnxruntime"}
EXTRAS = {"torch", "safetensors", "huggingface_hub", "kornia", "onnx", "onnxscript", "matplotlib", "jinja2"}
EXTRAS |= {"tensorboard", "scipy", "fastapi", "uvicorn", "ray", "pyarrow", "fsspec", "av", "pytest"}


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Python finds carmask, the packages that it requires, what these require, and nothing else."""
    folder = tmp_path_factory.mktemp("site-packages")
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    waiting = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    seen: set[str] = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = requirement.name.lower().replace("_", "-")
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        found = distribution(name)
        link_files(found, folder)
        waiting += found.requires or []
    for package in ("carmask", "carstudio"):
        (folder / package).symlink_to(ROOT.parent / package)
    return folder


def link_files(found: Distribution, folder: Path) -> None:
    for path in found.files or ():
        top = path.parts[0]
        if top not in ("..", "__pycache__") and not (folder / top).exists():
            (folder / top).symlink_to(Path(str(found.locate_file(top))).resolve())


def run(core: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with the packages of the core installation alone."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PYTHONPATH": str(core), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-S", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


COMMAND = (
    "import sys, atexit, json\n"
    "atexit.register(lambda: print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules}))))\n"
    "from carmask.cli import main\nmain(sys.argv[1:])\n"
)


def command(core: Path, *arguments: str, folder: Path) -> tuple[int, str, str, set[str]]:
    """Exit status, standard output, standard error and imported packages of `carmask ...`."""
    done = run(core, "-c", COMMAND, *arguments, folder=folder)
    printed, _, imported = done.stdout.rstrip("\n").rpartition("\n")
    return done.returncode, printed, done.stderr, set(json.loads(imported))


def test_the_extras_cannot_be_imported(core: Path, tmp_path: Path) -> None:
    program = (
        "import importlib.util as u, sys\nprint([name for name in sys.argv[1:] if u.find_spec(name)])\n"
        "import numpy, cv2, openvino, onnxruntime, pydantic, yaml, carmask.data.check"
    )
    done = run(core, "-c", program, *sorted(EXTRAS), folder=tmp_path)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("[]", "", 0)


def test_import_carmask_imports_the_standard_library_alone(core: Path, tmp_path: Path) -> None:
    program = (
        "import sys\nbefore = set(sys.modules)\nimport carmask\n"
        # A package that is None there cannot be imported.
        "for name in [name for name, module in sys.modules.items() if module is None]:\n    del sys.modules[name]\n"
        "loaded = {name.partition('.')[0] for name in sys.modules.keys() - before}\n"
        "print(sorted(loaded - sys.stdlib_module_names), set(carmask.__all__) <= set(dir(carmask)))\n"
    )
    done = run(core, "-c", program, folder=tmp_path)
    assert (done.stdout.strip(), done.stderr) == ("['carmask'] True", "")


def test_public_names_are_classes_and_functions_not_submodules() -> None:
    assert all(inspect.isclass(getattr(carmask, name)) for name in ("Segmenter", "Result", "UNet"))
    assert all(inspect.isfunction(getattr(carmask, name)) for name in ("train", "evaluate", "export"))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_help_imports_nothing_heavy(core: Path, tmp_path: Path, arguments: list[str]) -> None:
    status, printed, _, imported = command(core, *arguments, folder=tmp_path)
    assert status == 0
    assert carmask.__version__ in printed or "predict" in printed
    assert not imported & HEAVY


@pytest.mark.parametrize("name", ["predict", "evaluate", "check", "split"])
def test_the_help_of_a_command_needs_no_engine(core: Path, tmp_path: Path, name: str) -> None:
    status, printed, _, imported = command(core, name, "--help", folder=tmp_path)
    assert status == 0
    assert "Usage" in printed
    assert not imported & (EXTRAS | {"openvino", "onnxruntime"})


def test_segmenter(core: Path, tmp_path: Path, tiny: Path) -> None:
    program = (
        "import sys\nfrom carmask import Segmenter\n"
        "from carmask.runtime.options import RunOptions\n"
        "segment = Segmenter.load(options=RunOptions(sys.argv[2]))\nresult = segment(sys.argv[1])\n"
        "print(result.mask.shape, result.probability.dtype, result.box_px, result.coverage)\n"
        "print(segment.describe()['engine'], sorted(set(sys.argv[3:]) & set(sys.modules)))\n"
    )
    photo = str(tiny / "train" / "car0_01.jpg")
    for engine in ("openvino", "onnxruntime"):
        done = run(core, "-c", program, photo, engine, *EXTRAS, folder=tmp_path)
        assert done.stderr == ""
        first, last = done.stdout.splitlines()
        assert first.startswith("(60, 90) float32")
        assert last == f"{engine} []"
    assert list(tmp_path.iterdir()) == []


def test_evaluate_without_the_report_page(core: Path, tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").write_text("of an earlier run")
    status, printed, stderr, imported = command(core, "evaluate", str(tiny), "--out", "out", folder=tmp_path)
    assert (status, imported & EXTRAS) == (0, set())
    assert "Dice" in printed
    assert "pip install 'carmask[train]'" in stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["per_image.csv", "summary.json"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["photos"], summary["model"]["name"]) == (24, "general")


def test_check_and_split(core: Path, tmp_path: Path, tiny: Path) -> None:
    for arguments in (["check", str(tiny)], ["split", str(tiny), "--out", "split.json"]):
        status, _, stderr, imported = command(core, *arguments, folder=tmp_path)
        assert (status, imported & EXTRAS) == (0, set()), stderr
    assert (tmp_path / "split.json").is_file()


def test_predict_with_packaged_weights(core: Path, tmp_path: Path) -> None:
    photo = ROOT / "serving" / "self_test.jpg"
    status, _, stderr, imported = command(core, "predict", str(photo), "mask.png", folder=tmp_path)
    assert (status, imported & EXTRAS) == (0, set()), stderr
    with Image.open(tmp_path / "mask.png") as mask:
        assert (mask.size, mask.mode) == ((384, 256), "1")
        assert np.asarray(mask).any()


def test_the_error_names_the_missing_extra(core: Path, tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "weights").mkdir()
    for arguments in (
        ["train", str(tiny)],
        ["model", "classic"],
        ["predict", str(tiny / "train"), "out", "--model", "./weights"],
    ):
        status, _, stderr, _ = command(core, *arguments, folder=tmp_path)
        assert status == 1
        assert "pip install 'carmask[train]'" in stderr
        assert "Traceback" not in stderr


def test_a_mistyped_command_is_named_though_some_commands_cannot_be_imported(core: Path, tmp_path: Path) -> None:
    status, _, stderr, imported = command(core, "prdict", "photos", folder=tmp_path)
    assert (status, imported & HEAVY) == (1, set())
    assert stderr.startswith("error: ")
    assert "prdict" in stderr
    assert "predict" in stderr.replace("prdict", "")


def test_a_wrong_setting_is_explained_without_the_settings_of_training(core: Path, tmp_path: Path) -> None:
    status, _, stderr, imported = command(core, "serve", "--max-bytes", "5", folder=tmp_path)
    assert (status, imported & EXTRAS) == (1, set())
    assert stderr.startswith("error: --max-bytes = '5': ")
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["photos", "out", "--cluster", "auto"], "ray"),
        (["photos", "out.parquet"], "pyarrow"),
        (["list.parquet", "out"], "pyarrow"),
        (["s3://bucket/photos", "out"], "fsspec"),
    ],
)
def test_the_error_names_the_extra_cluster(core: Path, tmp_path: Path, arguments: list[str], needed: str) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (30, 20)).save(tmp_path / "photos" / name)
    (tmp_path / "list.parquet").touch()
    status, _, stderr, imported = command(core, "predict", *arguments, folder=tmp_path)
    assert (status, imported & EXTRAS) == (1, set())
    assert f"needs {needed}" in stderr
    assert "pip install 'carmask[cluster]'" in stderr
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "list.parquet"}
