"""The process around the service: its socket, its signals, its log."""

import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from carmask.errors import CarmaskError
from carmask.segmenter import Segmenter
from carmask.serving.app import Access, build_app
from carmask.serving.metrics import Metrics
from carmask.serving.protocol import GuardedConfig
from carmask.serving.service import Service
from carmask.serving.settings import Batching, Limits

_BACKLOG = 1024


class CannotListen(CarmaskError):
    """The address cannot be had."""


@dataclass(frozen=True)
class Place:
    """Where the service is. Port 0 is any that is free."""

    host: str = "127.0.0.1"
    port: int = 8000

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def run(
    segmenter: Segmenter,
    place: Place,
    limits: Limits,
    batching: Batching,
    access: Access,
    *,
    is_logged: bool,
    announce: Callable[[str], None],
) -> bool:
    """Serve until a signal comes, then finish what is there.

    Args:
        segmenter: What photos are cut out with.
        place: Where.
        limits: How much of everything is taken.
        batching: How photos share the network.
        access: Who may.
        is_logged: Whether each answer is a line on standard error.
        announce: Is told the service's address as soon as photos can be sent there.

    Returns:
        Whether it was Ctrl-C that ended it.

    Raises:
        CannotListen: another program is there, or the address is none of this machine.
        CarmaskError: limits that do not go together, or the self-test failed.

    """
    limits.check()
    _set_up_log(is_logged=is_logged)
    with _listening(place) as listener:
        metrics = Metrics()
        service = Service(segmenter, limits, batching, metrics)

        def take_test(failure: CarmaskError | None) -> None:
            if failure is None:
                announce(_address(listener))
            else:
                server.leave(failure)

        app = build_app(service, metrics, access, is_logged=is_logged, on_tested=take_test)
        server = _Server(GuardedConfig(app, limits, metrics, log_config=None, access_log=False, backlog=_BACKLOG))
        metrics.connections_now.set_function(lambda: len(server.server_state.connections))
        server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure
    return signal.SIGINT in server.signals


class _Server(uvicorn.Server):
    """uvicorn's server, which knows why it left."""

    failure: CarmaskError | None = None

    @property
    def signals(self) -> list[int]:
        """Which signals came."""
        return self._captured_signals

    def leave(self, failure: CarmaskError) -> None:
        """Stop, because of this."""
        self.failure = failure
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own sends itself the signal once more in the end, and what was finished well looks killed.
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _listening(place: Place) -> Iterator[socket.socket]:
    try:
        family, _, _, _, address = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CannotListen(
            f"{place.host}:{place.port}: cannot be listened on ({reason}); choose another --port or --host"
        ) from error
    with listener:
        yield listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _set_up_log(*, is_logged: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
    handler.setFormatter(formatter)
    log = logging.getLogger("carmask.serving")
    log.setLevel(logging.INFO if is_logged else logging.ERROR)
    log.addHandler(handler)
    log.propagate = False
    # What strangers send wrongly is counted, and not worth a line each.
    for name in ("uvicorn.error", "python_multipart"):
        quiet = logging.getLogger(name)
        quiet.setLevel(logging.ERROR)
        quiet.addHandler(handler)
        quiet.propagate = False
