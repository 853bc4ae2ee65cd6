"""A run told to all its trackers, so that none of them can hold it up or harm it."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from carmask.errors import first_line
from carmask.files import write_bytes_atomically
from carmask.models.series_file import FILE_NAME as SERIES_FILE
from carmask.training.settings import TrainSettings, flat
from carmask.training.trackers import TRACKERS, Beginning, Tracker, TrackerError, describe

# In the run's folder: by which name or number each tracker knows the run.
IDS_FILE = "trackers.json"
# How long each tracker may take at the end for what it has not recorded yet.
LAST_WAIT_S = 60.0


class Trackers:
    """All who record a run, each in a thread of its own, so that none holds up the training.

    Raises:
        TrackerError: see `check_trackers`.

    """

    def __init__(self, settings: TrainSettings) -> None:
        self._settings = flat(settings.model_dump(mode="json", exclude={"config"}))
        self._trackers = {name: TRACKERS[name]() for name in settings.trackers}
        self._recorders: list[_Recorder] = []

    @contextmanager
    def recording(self, folder: Path, step: int, say: Callable[[str], None]) -> Iterator[None]:
        """Record the run in `folder` while inside, of which `step` steps are done.

        say: told, once for each tracker and perhaps by another thread, of one that has failed.

        Raises:
            TrackerError: one cannot begin, and no training would be lost by saying so.

        """
        ids = _read_ids(folder)
        with ExitStack() as stack:
            for name, tracker in self._trackers.items():
                recorder = _Recorder(name, tracker, say)
                id_ = recorder.begin(Beginning(_name_of(folder), folder, self._settings, step, ids.get(name)))
                self._recorders.append(stack.enter_context(recorder))
                if id_ is not None and id_ != ids.get(name):
                    ids[name] = id_
                    write_bytes_atomically(folder / IDS_FILE, json.dumps(ids, indent=1).encode(), fsync=True)
            stack.callback(self._recorders.clear)
            yield

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """After `step` steps these were the values, each of a name such as "held_out/dice"."""
        for recorder in self._recorders:
            recorder.tell(lambda tracker: tracker.scalars(step, values))

    def picture(self, step: int, name: str, image_HWC: NDArray[np.uint8]) -> None:
        """After `step` steps this was to be seen; uint8 RGB 0..255, not to be changed any more. Told last of a step."""
        for recorder in self._recorders:
            recorder.tell(lambda tracker: tracker.picture(step, name, image_HWC))


class _Recorder:
    """One tracker and the thread in which it is told. It may fail, and that is said, but it never harms the run."""

    def __init__(self, name: str, tracker: Tracker, say: Callable[[str], None]) -> None:
        self._name = name
        self._tracker = tracker
        self._say = say
        self._failed = False
        self._calls: SimpleQueue[Callable[[Tracker], None] | None] = SimpleQueue()

    def begin(self, run: Beginning) -> str | None:
        """Begin in this thread, for some ask who is there."""
        try:
            return self._tracker.begin(run)
        except Exception as error:
            if run.step == 0:
                raise TrackerError(
                    f"tracker '{self._name}' cannot begin ({describe(error)}); put that right and go on with `carmask "
                    f"train --resume {run.folder}`, or begin anew without it (`--trackers tensorboard`)"
                ) from error
            self._fail(error)
            return None

    def tell(self, call: Callable[[Tracker], None]) -> None:
        """Have something recorded, soon."""
        self._calls.put(call)

    def __enter__(self) -> Self:
        # In the context of this thread, in which some remember what they have begun. Python waits at its end for
        # threads that are no daemons, and one may hang.
        self._thread = Thread(target=copy_context().run, args=(self._work,), name=self._name, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tell(lambda tracker: tracker.end(failed=kind is not None))
        self._calls.put(None)
        self._thread.join(LAST_WAIT_S)
        if self._thread.is_alive() and not self._failed:
            self._failed = True
            self._say(
                f"tracker   {self._name} has not taken all that it was told after {LAST_WAIT_S:.0f} s, and is left "
                "alone; the run's own folder has all"
            )

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            self._try(call)

    def _try(self, call: Callable[[Tracker], None]) -> None:
        if self._failed:
            return
        try:
            call(self._tracker)
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises, hours of training are worth more
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failed = True
        self._say(
            f"tracker   {self._name} has failed ({describe(error)}): nothing more is recorded there; training goes on, "
            "and the run's own folder has all"
        )


def _name_of(folder: Path) -> str:
    """What a run is called among all others; the folder of a fold or a stage alone does not say of which network."""
    is_part = (folder.parent / SERIES_FILE).is_file()
    return f"{folder.parent.name}-{folder.name}" if is_part else folder.name


def _read_ids(folder: Path) -> dict[str, str]:
    """What each tracker calls the run; nothing for a run that begins."""
    path = folder / IDS_FILE
    if not path.is_file():
        return {}
    try:
        return {str(name): str(id_) for name, id_ in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise TrackerError(
            f"{path}: does not say how the trackers know the run ({first_line(error)}); remove it, and they begin anew"
        ) from error
