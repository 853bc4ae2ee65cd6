"""What figures depend on beside data and settings: versions, machine, commit."""

import datetime
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from carmask import __version__

_PACKAGES = (
    *("numpy", "pillow", "opencv-python-headless", "openvino", "onnxruntime", "av", "ray", "pyarrow"),
    *("torch", "kornia", "huggingface_hub", "safetensors"),
)


def environment() -> dict[str, Any]:
    """What a run's figures depend on beside its settings."""
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


def _commit() -> str | None:
    """The commit of the checkout that this code lies in, marked where it has been changed since.

    Nothing where the code is installed: a virtual environment may lie in somebody else's checkout. Documents count for
    nothing: no figure depends on them, and figures are recorded there.
    """
    git = shutil.which("git")
    checkout = Path(__file__).parents[2]
    if git is None or not (checkout / ".git").exists():
        return None

    def ask(*command: str) -> str:
        done = subprocess.run(  # noqa: S603 - fixed commands
            [git, *command], cwd=checkout, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    commit = ask("rev-parse", "--short=12", "HEAD")
    is_changed = ask("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    return f"{commit}-dirty" if commit and is_changed else commit or None


def cpu_name() -> str:
    """The processor's own name for itself, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
