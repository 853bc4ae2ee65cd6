import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carmask.training.checkpoint import CheckpointError, load_checkpoint, previous_checkpoint, save_checkpoint


def state(step: int) -> dict[str, object]:
    return {
        "step": step,
        "weights": {"a": torch.full((3, 2), step / 7)},
        "history": [{"dice": 0.1 * step}],
        "none": None,
    }


def loaded(path: Path) -> tuple[dict[str, object], list[str]]:
    said: list[str] = []
    return load_checkpoint(path, said.append), said


def test_what_is_saved_is_loaded_and_the_one_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for step in (1, 2, 3):
        save_checkpoint(path, state(step))
    for place, step in ((path, 3), (previous_checkpoint(path), 2)):
        found, said = loaded(place)
        assert said == []
        assert found.keys() == state(step).keys()
        assert found["step"] == step
        assert torch.equal(found["weights"]["a"], state(step)["weights"]["a"])  # type: ignore[index]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_recognized_and_the_one_before_is_used(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "checkpoint.pt"
    for step in (4, 5):
        save_checkpoint(path, state(step))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= data.draw(st.integers(1, 255))
    else:
        del content[place:]
    path.write_bytes(content)
    found, said = loaded(path)
    assert found["step"] == 4
    (warning,) = said
    assert str(path) in warning
    previous_checkpoint(path).write_bytes(b"")
    with pytest.raises(CheckpointError):
        loaded(path)


def test_a_crash_between_the_two_moves_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, state(6))
    path.rename(previous_checkpoint(path))
    assert loaded(path)[0]["step"] == 6
    previous_checkpoint(path).unlink()
    with pytest.raises(CheckpointError):
        loaded(path)


def test_a_damaged_one_does_not_take_the_place_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for step in (1, 2):
        save_checkpoint(path, state(step))
    path.write_bytes(path.read_bytes()[:-1])
    assert loaded(path)[0]["step"] == 1
    save_checkpoint(path, state(3))
    assert loaded(path)[0]["step"] == 3
    assert loaded(previous_checkpoint(path))[0]["step"] == 1
    # And from there on as ever.
    save_checkpoint(path, state(4), is_own=True)
    assert [loaded(place)[0]["step"] for place in (path, previous_checkpoint(path))] == [4, 3]


@pytest.fixture
def killed_before() -> Iterator[Callable[[str, int], AbstractContextManager[None]]]:
    """Ends what is inside when something is about to be done; ("os.rename", 2) is the second move of a file."""
    awaited: list[tuple[str, int]] = []

    def hook(event: str, _arguments: object) -> None:
        # It cannot be taken away again, and must be quick.
        if awaited and event == awaited[0][0]:
            name, times = awaited.pop()
            if times == 1:
                raise KeyboardInterrupt
            awaited.append((name, times - 1))

    @contextmanager
    def killed(event: str, times: int) -> Iterator[None]:
        awaited.append((event, times))
        with pytest.raises(KeyboardInterrupt):
            yield
        assert not awaited

    sys.addaudithook(hook)
    yield killed
    awaited.clear()


@pytest.mark.parametrize("is_damaged", [False, True])
def test_killed_at_any_moment_of_a_save_one_is_whole(tmp_path: Path, killed_before: Any, *, is_damaged: bool) -> None:
    path = tmp_path / "checkpoint.pt"
    # Writing, reading back, reading the one that is there, moving that, moving the new one.
    moments = [("open", 1), ("open", 2), ("open", 3), ("os.rename", 1), *([] if is_damaged else [("os.rename", 2)])]
    for moment in moments:
        for step in (1, 2):
            save_checkpoint(path, state(step))
        if is_damaged:
            path.write_bytes(path.read_bytes()[:-1])
        with killed_before(*moment):
            save_checkpoint(path, state(3))
        assert loaded(path)[0]["step"] == (1 if is_damaged else 2)
    save_checkpoint(path, state(3))
    assert loaded(path)[0]["step"] == 3


def test_code_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 1, "harm": Path})
    with pytest.raises(CheckpointError):
        loaded(path)


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as Unix does")
def test_a_full_disk_leaves_the_checkpoint_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, state(1))
    script = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from carmask.training.checkpoint import CheckpointError, save_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    save_checkpoint(Path(sys.argv[1]), {'step': 2, 'large': torch.zeros(100_000)})\n"
        "except CheckpointError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert str(path) in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert loaded(path)[0]["step"] == 1
