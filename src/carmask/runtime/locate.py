"""Find the file or folder of a model by its name, path or Hub id."""

import re
from importlib.resources import files
from itertools import product
from pathlib import Path

from carmask.errors import CarmaskError, first_line
from carmask.files import expand_home
from carmask.models.config import WEIGHTS, weights_folder
from carmask.models.series_file import fold_folders
from carmask.runtime.options import EngineName

DEFAULT_MODEL = "general"

# An exported network in a folder or a Hub repository, which may also hold weights.
EXPORTED = "model.onnx"

# owner/name, as the Hub allows them.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Names like runs/NAME look like a Hub id, but are folders of `carmask train`, seen from another working folder.
_OWN_FOLDERS = frozenset({"runs", "weights"})
_FILE_SUFFIXES = frozenset({".onnx", ".pt", ".pth", ".safetensors", ".ckpt", ".xml", ".json", ".yaml"})


class ModelNotFound(CarmaskError):
    """There is no such model."""


def packaged_models() -> dict[str, Path]:
    """Return the weights inside the package, by name."""
    folder = Path(str(files("carmask"))) / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.onnx"))}


def locate(model: str | Path | None, engine: EngineName = "auto") -> Path:
    """Find a model: an `.onnx` file, or a folder of weights or of a run.

    Args:
        model: The name of packaged weights, which takes precedence over a file of that name; a path; or a Hub id
            (owner/name), which is downloaded unless the Hub's local cache has it. None is the default weights.
        engine: torch runs the weights of a folder or a Hub repository that also holds model.onnx; the other engines
            run that file.

    Raises:
        ModelNotFound: there is no such model, or the Hub cannot be reached.
    """
    packaged = packaged_models()
    model = DEFAULT_MODEL if model is None else model
    if isinstance(model, str) and model in packaged:
        return packaged[model]
    path = Path(expand_home(str(model)))
    exported = engine != "torch"
    if path.exists():
        return _prefer_exported(path) if exported else path
    if isinstance(model, str) and _is_hub_id(model):
        return _download(model, exported=exported)
    raise ModelNotFound(
        f"{model}: no such model; name a run's folder, a folder of weights, an .onnx file, a Hub id "
        f"(owner/name), or packaged weights ({', '.join(packaged) or 'there are none'})"
    )


def locate_offline(model: str | Path) -> Path:
    """Return the file or folder of packaged weights or of a path, which may not exist; never asks the Hub."""
    return _prefer_exported(packaged_models().get(str(model), Path(model)))


def locate_all(model: str | Path | None, engine: EngineName = "auto") -> tuple[Path, ...]:
    """Find a model as `locate` does, or the runs of all folds if it is a folder of folds.

    Raises:
        ModelNotFound: see `locate`.
        SeriesError: not all folds are finished.
    """
    folder = folder_of_folds(model)
    models = fold_folders(folder, finished=True) if folder else (model,)
    return tuple(locate(one, engine) for one in models)


def files_of(place: Path) -> list[Path]:
    """Return all files of the model in a place."""
    return [weights_folder(place) / name for name in WEIGHTS] if place.is_dir() else [place]


def folder_of_folds(model: str | Path | None) -> Path | None:
    """Return the folder of a model that has one run for each fold; None for any other model.

    Raises:
        SeriesError: it is damaged.
    """
    if model is None or (isinstance(model, str) and model in packaged_models()):
        return None
    path = Path(expand_home(str(model)))
    return path if fold_folders(path) else None


def _prefer_exported(place: Path) -> Path:
    exported = place / EXPORTED
    return exported if exported.is_file() else place


def _is_hub_id(model: str) -> bool:
    """Whether it cannot be a path; a path must never be looked up on the Hub."""
    folder = Path(model).parent
    return (
        _HUB_ID.fullmatch(model) is not None
        and Path(model).suffix.lower() not in _FILE_SUFFIXES
        and not folder.exists()
        and folder.name not in _OWN_FOLDERS
    )


def _download(hub_id: str, *, exported: bool) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise ModelNotFound(
            f"{hub_id}: no such folder, and looking on the Hub needs huggingface_hub, which is not installed; "
            "run `pip install huggingface_hub`"
        ) from error
    wanted: tuple[tuple[str, ...], ...] = ((EXPORTED,), WEIGHTS) if exported else (WEIGHTS,)
    cause = ""
    # The cache comes first: asking the Hub whether there is something newer takes half a minute offline.
    for cached, names in product((True, False), wanted):
        try:
            paths = [Path(hf_hub_download(hub_id, name, local_files_only=cached)) for name in names]
            return paths[0] if names == (EXPORTED,) else paths[0].parent
        except (EntryNotFoundError, OSError, ValueError) as error:
            # Also raised for a missing repository, missing access or a bad name; then other files are not there either.
            cause = first_line(error)
            is_offline = isinstance(error, LocalEntryNotFoundError) and not cached
            if is_offline or not isinstance(error, EntryNotFoundError):
                break
    raise ModelNotFound(
        f"{hub_id}: no such folder, and the Hub gave neither {EXPORTED} nor {' with '.join(WEIGHTS)} "
        f"({cause}); check the name, and the network"
    )
