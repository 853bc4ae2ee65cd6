"""Every command of the README runs as it stands there, in one folder and in this order; training is made short."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from carmask.cli import main
from tiny_dataset import write_tiny_dataset

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
# Training at full size takes minutes; these options follow the command.
SHORTER = {
    "train": "--epochs 1 --batch-size 4 --input.height-px 64 --input.width-px 64 --no-tensorboard",
    "serve": "--port 0",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder that the commands run in: photos/, mine/ and car.jpg."""
    folder = tmp_path_factory.mktemp("readme")
    write_tiny_dataset(folder / "carvana")
    photos = sorted((folder / "carvana" / "train").glob("*.jpg"))
    (folder / "photos").mkdir()
    shutil.copy(photos[0], folder / "photos")
    shutil.copy(photos[0], folder / "car.jpg")
    (folder / "mine").mkdir()
    shutil.move(folder / "carvana" / "train", folder / "mine" / "images")
    shutil.move(folder / "carvana" / "train_masks", folder / "mine" / "masks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_runs(command: list[str], folder: Path) -> None:
    program, *arguments = command
    shorter = SHORTER.get(arguments[0], "").split()
    if program == "make":
        subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, check=True, capture_output=True)
    elif program == "python3":
        subprocess.run([sys.executable, *arguments, "--without-pip"], check=True)
    elif program == "source":
        assert Path(*arguments).is_file()
    elif program == "pip":
        # What it would install is in this environment; an extra of another name would be ignored without an error.
        assert arguments[0] == "install"
        extras = re.findall(r"\[(.*)\]", arguments[1])
        assert (
            set(extras)
            <= tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
        )
    elif arguments[0] == "serve":
        serve([*arguments, *shorter])
    else:
        assert program == "carmask"
        before = set(folder.rglob("*"))
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *shorter])
        assert ended.value.code == 0
        assert arguments[0] == "check" or set(folder.rglob("*")) > before


def serve(arguments: list[str]) -> None:
    """Start the service, read its page, and stop it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "carmask", *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        port = next(
            int(found[1]) for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:(\d+)", line))
        )
        client = HTTPConnection("127.0.0.1", port)
        client.request("GET", "/")
        assert client.getresponse().status == 200
    finally:
        process.terminate()
        process.communicate()


def test_python_runs(folder: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(code, {})  # noqa: S102
    assert (folder / "out.png").stat().st_size > 0


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120
