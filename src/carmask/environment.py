"""What recorded results depend on besides data and settings: package versions, machine, commit."""

import datetime
import os
import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from carmask import __version__

_PACKAGES = (
    *("numpy", "pillow", "opencv-python-headless", "openvino", "onnxruntime", "av", "ray", "pyarrow"),
    *("torch", "kornia", "huggingface_hub", "safetensors"),
)


def environment() -> dict[str, Any]:
    """Return commit, date, machine, Python and package versions, ready for JSON."""
    return {
        "carmask": __version__,
        "commit": _commit(),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.platform()},
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _commit() -> str | None:
    """Return the short commit of the git checkout that contains this file, with "-dirty" if tracked files were changed.

    None for an installed package, even if its virtual environment is inside another project's checkout. Changes in
    docs/ are ignored: no result depends on them, and results are recorded there. Git is asked once: the process goes on
    with the code that it has imported.
    """
    git = shutil.which("git")
    checkout = Path(__file__).parents[2]
    if git is None or not (checkout / ".git").exists():
        return None

    def run(*command: str) -> str:
        done = subprocess.run(  # noqa: S603 - fixed commands
            [git, *command], cwd=checkout, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    commit = run("rev-parse", "--short=12", "HEAD")
    # Git would otherwise take a lock and write its index.
    is_dirty = run("--no-optional-locks", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    return f"{commit}-dirty" if commit and is_dirty else commit or None


def cpu_name() -> str:
    """Return the CPU's model name, or its architecture where the system does not give one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
