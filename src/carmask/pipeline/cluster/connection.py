"""Join a Ray cluster, or start one on this machine."""

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from threading import Event, Thread, current_thread, main_thread
from typing import Any

from carmask.errors import first_line
from carmask.pipeline.cluster.job import ClusterError

AUTO = "auto"

# No metrics collected, no progress bars drawn. `carmask.privacy` switches usage statistics off.
_ENVIRONMENT = {
    "RAY_enable_metrics_collection": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}
_SILENT = logging.CRITICAL + 1
_CONNECT_TIMEOUT_S = 10.0
# After 60 s without the head node Ray ends the process, without a message.
_HEAD_TIMEOUT_S = 40.0
_HEAD_CHECK_S = 5.0
# Socket paths have at most 107 characters and Ray's are long, so its files lie in a folder with a short name.
_TEMPORARY = "/tmp" if os.name == "posix" else tempfile.gettempdir()  # noqa: S108


@contextmanager
def connect(address: str, when_lost: Callable[[str], None]) -> Iterator[Any]:
    """Join the cluster at `address` (host:port, or `auto`) for the block; yields the module `ray`.

    auto is the cluster that RAY_ADDRESS names or this machine belongs to; if there is none, one is started on this
    machine, with all its cores, for the length of the block.

    when_lost: see `watch_head`. The files of a cluster started here are removed before, so it may end the process.

    Raises:
        ClusterError: the address does not answer, or Ray does not start.
    """
    found = (os.environ.get("RAY_ADDRESS") or _find_own_cluster()) if address == AUTO else address
    if found is not None:
        _check_reachable(found)
    # If something other than Ray answers, one attempt takes most of a minute; the default is twenty attempts.
    environment = _new_token() if found is None else {"RAY_NUM_REDIS_GET_RETRIES": "1"}
    with quiet_ray(environment) as ray, _restored_sigterm(), ExitStack() as stack:
        quiet = {"log_to_driver": False, "logging_level": _SILENT}
        folder = None
        if found is not None:
            stack.callback(ray.shutdown)
            _join(ray, found, quiet)
        else:
            folder = stack.enter_context(folder_for_ray())
            stack.callback(ray.shutdown)
            with _without_dashboard(ray):
                _start(ray, {"include_dashboard": False, "_temp_dir": folder, **quiet})

        def remove_and_tell(message: str) -> None:
            if folder is not None:
                _remove(folder)
            when_lost(message)

        with watch_head(ray, remove_and_tell):
            yield ray


@contextmanager
def watch_head(ray: Any, when_lost: Callable[[str], None]) -> Iterator[None]:
    """Call `when_lost` with a message, from a thread, if the head node stops answering during the block.

    Ray itself waits for its head node, in calls that cannot be interrupted.
    """
    address: str = ray.get_runtime_context().gcs_address
    ended = Event()

    def watch() -> None:
        answered_s = time.monotonic()
        while not ended.wait(_HEAD_CHECK_S):
            try:
                _check_reachable(address)
                answered_s = time.monotonic()
            except ClusterError:
                if time.monotonic() - answered_s > _HEAD_TIMEOUT_S and not ended.is_set():
                    when_lost(
                        f"--cluster: the head node at {address} no longer answers; as soon as the cluster runs again, "
                        "run the same command again to continue"
                    )
                    return

    Thread(target=watch, name="carmask-head", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def quiet_ray(environment: dict[str, str] | None = None) -> Iterator[Any]:
    """Import Ray Data and keep it quiet for the block; yields the module `ray`. Everything is restored afterwards.

    Ray has no public option against two kinds of output: messages of its daemons, which the driver prints on standard
    output between our results, and warnings of its C++ core on file descriptor 2 about things that Ray repairs itself.

    environment: further variables for Ray, besides those that keep it quiet.
    """
    with _environment({**_ENVIRONMENT, **(environment or {})}):
        import ray
        import ray.data

        logger, worker = logging.getLogger("ray.data"), ray._private.worker
        level, prints_logs = logger.level, worker._worker_logs_enabled
        logger.setLevel(_SILENT)
        worker._worker_logs_enabled = False
        try:
            with _silent_file_descriptor_2():
                yield ray
        finally:
            logger.setLevel(level)
            worker._worker_logs_enabled = prints_logs


@contextmanager
def folder_for_ray() -> Iterator[str]:
    """A folder with a short name for Ray's files, removed afterwards."""
    folder = tempfile.mkdtemp(prefix="carmask-ray-", dir=_TEMPORARY)
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: str) -> None:
    # Ray's last processes may still be writing there.
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):  # noqa: PTH110
            break
        time.sleep(0.1)


@contextmanager
def _restored_sigterm() -> Iterator[None]:
    """Restore what SIGTERM does after the block: Ray replaces it, and keeps its own after its shutdown."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        # Ray sets it only there too, and other threads must not.
        if current_thread() is main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _without_dashboard(ray: Any) -> Iterator[None]:
    """Start no process for Ray's dashboard in the block.

    Without a dashboard that process is still there for usage statistics. Even with these switched off it asks the
    metadata services of three clouds where it runs, one of them by a name that has to be looked up.
    """
    services = ray._private.services
    start = services.start_api_server
    services.start_api_server = lambda *_, **__: (None, None)
    try:
        yield
    finally:
        services.start_api_server = start


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the block; those that the user has set stay, and what Ray sets goes too."""
    before = dict(os.environ)
    os.environ.update({name: value for name, value in variables.items() if name not in before})
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _silent_file_descriptor_2() -> Iterator[None]:
    """Send file descriptor 2 to the null device for the block; Python's own standard error still arrives."""
    with os.fdopen(os.dup(2), "w", 1, "utf-8", "backslashreplace") as terminal:
        with open(os.devnull, "wb") as null:  # noqa: PTH123
            os.dup2(null.fileno(), 2)
        try:
            # Tests and notebooks replace sys.stderr, and keep theirs.
            with redirect_stderr(terminal) if sys.stderr is sys.__stderr__ else nullcontext():
                yield
        finally:
            os.dup2(terminal.fileno(), 2)


def _find_own_cluster() -> str | None:
    """Return the address of the cluster that `ray start` made this machine a part of, if it still answers."""
    note = Path(os.environ.get("RAY_TMPDIR", _TEMPORARY), "ray", "ray_current_cluster")
    try:
        address = note.read_text(encoding="utf-8").strip()
        _check_reachable(address)
    except (OSError, ClusterError):
        return None
    return address


def _new_token() -> dict[str, str]:
    """A token that keeps others out of a cluster started here; Ray itself would save one in the user's home folder."""
    if "RAY_AUTH_MODE" in os.environ:
        return {}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _check_reachable(address: str) -> None:
    """Check quickly that something answers at an address; Ray would try for a long time.

    Raises:
        ClusterError: nothing answers, or it is not an address.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "://" in host:
        raise ClusterError(
            f"--cluster {address}: give auto, or the host:port that `ray start` shows, of a cluster that this machine "
            "belongs to"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"--cluster {address}: does not answer ({first_line(error)}); check the address, and that `ray start "
            "--head` runs there"
        ) from error


def _start(ray: Any, options: dict[str, Any]) -> None:
    try:
        ray.init(address="local", **options)
    except Exception as error:
        # Ray has no error of its own for a start that takes too long.
        raise ClusterError(
            f"--cluster {AUTO}: Ray does not start on this machine ({first_line(error)}); try again "
            "when the machine is less busy and has more free memory, or leave out --cluster; the results are the same"
        ) from error


def _join(ray: Any, address: str, options: dict[str, Any]) -> None:
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        if "InvalidAuthToken" in str(error.__cause__):
            raise ClusterError(
                f"--cluster {address}: needs its own token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the output "
                "of `ray get-auth-token` there"
            ) from error
        raise ClusterError(
            f"--cluster {address}: cannot be joined ({first_line(error)}); this machine must belong to the cluster "
            f"(`ray start --address={address}`) and have the same versions of Python and Ray"
        ) from error
