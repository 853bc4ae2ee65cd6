"""Join a Ray cluster, or start one on this machine, so that nothing of it shows but its errors."""

import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from carmask.errors import first_line
from carmask.pipeline.cluster.order import ClusterError

AUTO = "auto"

# Set before Ray is imported: it tells its makers nothing, and measures nothing.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}
_SILENT = logging.CRITICAL + 1
_SILENTLY = {"log_to_driver": False, "logging_level": _SILENT}
_ADDRESS = "RAY_ADDRESS"
_ANSWER_S = 10.0
# Where Ray keeps what it knows, too; a user's own folder for it may have too long a name for sockets.
_TEMPORARY = "/tmp" if os.name == "posix" else tempfile.gettempdir()  # noqa: S108


@contextmanager
def joined(address: str) -> Iterator[Any]:
    """Join the cluster at `address` (host:port), or `auto`; gives the module `ray`. Leaves it when the block ends.

    auto is the cluster that RAY_ADDRESS names or this machine belongs to; where there is none, one is started on this
    machine, with all its cores, for as long as the block lasts.

    Raises:
        ClusterError: nothing answers there, or Ray is not installed.

    """
    named = os.environ.get(_ADDRESS) if address == AUTO else address
    found = named or _find_own()
    if found:
        # What answers and is no Ray is given up after one try of most of a minute, not after twenty.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    else:
        _lock()
    ray = import_ray()
    if named:
        _reach(named)
    with _silent_core(), _joined(ray, found) if found else _started_here(ray):
        yield ray


def import_ray() -> Any:
    """Import Ray Data, quietly; the module `ray`.

    Raises:
        ClusterError: it is not installed.

    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ClusterError(
            f"--cluster: needs Ray Data, which is not installed ({first_line(error)}); "
            "`pip install 'carmask[cluster]'` brings it"
        ) from error
    logging.getLogger("ray.data").setLevel(_SILENT)
    # What it hears of machines and workers it prints among our results otherwise; there is no public switch.
    ray._private.worker._worker_logs_enabled = False
    return ray


def _find_own() -> str | None:
    """The cluster that `ray start` made this machine part of, if it is still there."""
    note = Path(os.environ.get("RAY_TMPDIR", _TEMPORARY), "ray", "ray_current_cluster")
    try:
        found = note.read_text(encoding="utf-8").strip()
        _reach(found)
    except (OSError, ClusterError):
        return None
    return found


def _lock() -> None:
    """Let nobody else use a cluster that is started here. Ray would leave its token in the user's home."""
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _reach(address: str) -> None:
    """Find out at once that nothing answers; Ray would try for long.

    Raises:
        ClusterError: nothing answers, or it is no such address.

    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "://" in host:
        raise ClusterError(
            f"--cluster {address}: give auto, or host:port of a cluster that this machine belongs to, as `ray start` "
            "shows it"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"--cluster {address}: does not answer ({first_line(error)}); check the address, and that `ray start "
            "--head` runs there"
        ) from error


@contextmanager
def _silent_core() -> Iterator[None]:
    """Keep what Ray's compiled parts write to the terminal away from it; what Python writes there still arrives.

    They complain of much that Ray then puts right, and no setting stops them.
    """
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    python_stderr = sys.stderr
    with os.fdopen(terminal, "w", 1, "utf-8", "backslashreplace") as stream:
        if _writes_to_terminal(python_stderr):
            sys.stderr = stream
        try:
            yield
        finally:
            sys.stderr = python_stderr
            os.dup2(terminal, 2)


def _writes_to_terminal(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 2
    except OSError:
        return False  # what a test or a notebook has put there


@contextmanager
def _joined(ray: Any, address: str) -> Iterator[None]:
    try:
        ray.init(address=address, **_SILENTLY)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        if "InvalidAuthToken" in str(error.__cause__):
            raise ClusterError(
                f"--cluster {address}: wants another token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to what `ray "
                "get-auth-token` says there"
            ) from error
        raise ClusterError(
            f"--cluster {address}: cannot be joined ({first_line(error)}); this machine has to belong to the cluster "
            f"(`ray start --address={address}`), with the same versions of Python and Ray"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _started_here(ray: Any) -> Iterator[None]:
    with folder_for_ray() as folder:
        try:
            ray.init(address="local", include_dashboard=False, _temp_dir=folder, **_SILENTLY)
            yield
        finally:
            ray.shutdown()


@contextmanager
def folder_for_ray() -> Iterator[str]:
    """A folder with a short name for what Ray keeps, which is gone afterwards."""
    # Names of sockets have at most 107 characters, and Ray's are long.
    folder = tempfile.mkdtemp(prefix="carmask-ray-", dir=_TEMPORARY)
    try:
        yield folder
    finally:
        # Ray's last processes may still be writing there.
        for _ in range(50):
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.exists(folder):  # noqa: PTH110
                break
            time.sleep(0.1)
