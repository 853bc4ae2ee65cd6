import os
import subprocess
import sys
from pathlib import Path

import pytest

from carmask.errors import CarmaskError
from carmask.runtime.load import load_engine
from carmask.runtime.locate import ModelNotFound, locate, packaged_models

FAST = packaged_models()["fast"]


def test_names_are_of_the_packaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fast").mkdir()
    assert locate("fast") == FAST
    assert locate(None) == packaged_models()["general"]
    assert locate("./fast") == locate(Path("fast")) == Path("fast")


@pytest.mark.parametrize(
    "model",
    [
        "fats",
        "~nobody/model",
        "runs/fast",
        "./owner/name",
        "/owner/name",
        "owner/name.onnx",
        "a/b/c",
        Path("owner/name"),
    ],
)
def test_what_may_be_a_path_is_never_looked_for_on_the_hub(
    model: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound, match="packaged weights"):
        locate(model)


def test_a_name_below_a_folder_that_is_there_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    with pytest.raises(ModelNotFound, match="packaged weights"):
        locate("owner/name")


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(CarmaskError, match=r"weights\.pt"):
        load_engine(tmp_path / "weights.pt")


def hub_cache(home: Path, hub_id: str, files: dict[str, bytes]) -> None:
    """What huggingface_hub leaves behind after a download."""
    repository = home / "hub" / f"models--{hub_id.replace('/', '--')}"
    revision = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    for name, data in files.items():
        path = repository / "snapshots" / revision / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


PROGRAM = """
import sys
from carmask.errors import CarmaskError
from carmask.runtime.locate import locate
if "blocked" in sys.argv:
    sys.modules["huggingface_hub"] = None
for hub_id in sys.argv[1:]:
    for engine in ('auto', 'torch'):
        try:
            print(locate(hub_id, engine))
        except CarmaskError as error:
            print(error)
"""


def asked(home: Path, *arguments: str) -> list[str]:
    """What is found for each id, as an exported file and as weights, without a network."""
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_a_hub_id_is_found_in_the_local_cache(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    weights = {"config.json": b"{}", "model.safetensors": b""}
    hub_cache(tmp_path, "owner/exported", {"model.onnx": b""})
    hub_cache(tmp_path, "owner/weights", weights)
    hub_cache(tmp_path, "owner/both", {"model.onnx": b"", **weights})
    said = asked(tmp_path, "owner/exported", "owner/weights", "owner/both", "owner/nothing")
    places = [Path(line) for line in said]
    assert [place.name for place in (places[0], places[4])] == ["model.onnx", "model.onnx"]
    for place, owner in ((places[2], "weights"), (places[3], "weights"), (places[5], "both")):
        assert place.is_dir()
        assert f"models--owner--{owner}" in place.parts
    for line, owner in ((said[1], "exported"), (said[6], "nothing"), (said[7], "nothing")):
        assert line.startswith(f"owner/{owner}: ")
    assert all("pip install huggingface_hub" in line for line in asked(tmp_path, "owner/exported", "blocked")[:2])
