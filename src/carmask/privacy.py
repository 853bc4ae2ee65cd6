"""Keep packages from reporting to their makers, and from writing into the home folder. docs/privacy.md is about it.

`import carmask` calls `silence_packages` before any of these packages can be imported. A variable that the user has set
stays as it is.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Of onnxruntime (some builds), Ray, huggingface_hub, MLflow, Weights & Biases, and of all that keep to the convention.
_VARIABLES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "DO_NOT_TRACK": "1",
}


def silence_packages() -> None:
    """Switch off every report that a package would send without being asked."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    # `import openvino` sends an event and writes an id into the home folder. It has no variable against that, but works
    # without this package; None makes Python treat it as not installed.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


@contextmanager
def fonts_in_temporary_folder() -> Iterator[None]:
    """Import matplotlib in this block: it and fontconfig then list the fonts in the temporary folder, not at home."""
    # `import carmask` calls this module, and does not wait for that one.
    import tempfile

    variables: dict[str, str] = {}
    if "MPLCONFIGDIR" not in os.environ:
        with suppress(OSError):  # also where there is no temporary folder
            folder = Path(tempfile.gettempdir(), f"carmask-fonts-{os.getuid() if os.name == 'posix' else 'user'}")
            folder.mkdir(mode=0o700, exist_ok=True)
            # Somebody else's folder, or a link to one, must not be written to.
            if os.name != "posix" or folder.lstat().st_uid == os.getuid():
                variables = dict.fromkeys(("MPLCONFIGDIR", "XDG_CACHE_HOME"), str(folder))
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
