"""The process of the service: its socket, its signals, its log, and the self-test before it accepts photos."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from importlib.resources import files

import numpy as np
import uvicorn

from carmask.errors import CarmaskError
from carmask.evaluation.metrics import dice
from carmask.imaging.decode import decode_photo
from carmask.runtime.locate import packaged_models
from carmask.segmenter import Segmenter
from carmask.serving.app import build_app
from carmask.serving.metrics import ServiceMetrics
from carmask.serving.protocol import LimitedProtocol
from carmask.serving.settings import ServiceLimits
from carmask.serving.worker import SegmentationWorker

_BACKLOG = 1024
# The packaged networks reach 0.973 and more on this photo, which `carmask studio` rendered.
_MIN_DICE = 0.95


class CannotListen(CarmaskError):
    """The address is not available."""


class SelfTestFailed(CarmaskError):
    """The networks do not give the results that they should."""


def run(
    segmenter: Segmenter,
    host: str,
    port: int,
    limits: ServiceLimits,
    *,
    token: str | None,
    origins: Sequence[str],
    log_requests: bool,
    root_path: str = "",
    announce: Callable[[str], None],
) -> bool:
    """Serve until SIGINT or SIGTERM, then finish the requests in progress.

    port: 0 is any free port. token: clients must send it, if it is set. origins: other sites whose pages may use the
    service. root_path: the path below which a proxy puts it. log_requests: each response is a line of the log.
    announce: called with the service's URL as soon as it accepts photos.

    Returns:
        Whether it was SIGINT (Ctrl-C) that ended it.

    Raises:
        CannotListen: another program uses the address, or this machine does not have it.
        CarmaskError: the self-test failed.
    """
    with _listening(host, port) as listener, _recorded_signals() as signals:
        metrics = ServiceMetrics()
        worker = SegmentationWorker(segmenter, limits, metrics)
        config = uvicorn.Config(
            build_app(worker, metrics, token=token, origins=origins, log_requests=log_requests, root_path=root_path),
            http=partial(LimitedProtocol, limits=limits, metrics=metrics),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            h11_max_incomplete_event_size=limits.max_header_bytes,
            timeout_keep_alive=limits.keep_alive_s,
            timeout_graceful_shutdown=limits.shutdown_s,
        )
        server = uvicorn.Server(config)
        # One that came before uvicorn listens to signals.
        server.should_exit = bool(signals)
        metrics.connections_now.set_function(lambda: len(server.server_state.connections))
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner, closing(worker):
            runner.run(_serve(server, listener, worker, announce))
    return signal.SIGINT in signals


async def self_test(worker: SegmentationWorker) -> None:
    """Segment the photo twice: both results must be the same, and those of packaged networks must be right.

    Raises:
        SelfTestFailed: they are not.
        EngineError: a network cannot run.
    """
    here = files("carmask.serving")
    segmenter = worker.segmenter
    fitted = segmenter.fit(segmenter.decode((here / "self_test.jpg").read_bytes()))
    true_mask_HW = decode_photo((here / "self_test.png").read_bytes(), channels=1).image_HWC[..., 0] > 127
    probability_HW, again_HW = [segmenter.restore(fitted, await worker.batcher.infer(fitted)) for _ in range(2)]
    if probability_HW.shape != true_mask_HW.shape or not np.isfinite(probability_HW).all():
        raise SelfTestFailed(f"{segmenter.name}: the network returns no probabilities; export it again")
    if not np.array_equal(probability_HW, again_HW):
        raise SelfTestFailed(f"{segmenter.name}: the same photo gives two results; choose another --engine")
    # What other networks were trained to find is not known.
    packaged = set(packaged_models().values())
    if all(member.place in packaged for member in segmenter.networks):
        # At the networks' own threshold: an extreme --threshold is the user's choice.
        reached = dice(true_mask_HW, probability_HW >= Segmenter(segmenter.networks).threshold)
        if reached < _MIN_DICE:
            raise SelfTestFailed(
                f"{segmenter.name}: the Dice score on a known photo is {reached:.3f}, below {_MIN_DICE:g}; install "
                "carmask again or choose another --engine"
            )


async def _serve(
    server: uvicorn.Server, listener: socket.socket, worker: SegmentationWorker, announce: Callable[[str], None]
) -> None:
    """Serve until a signal; accept photos as soon as the self-test has passed."""

    async def test_and_accept() -> None:
        try:
            await self_test(worker)
        except Exception as error:
            worker.problem = str(error)
            server.should_exit = True
            raise
        if server.should_exit:
            return  # the socket is closed already
        worker.accept_photos()
        host, port = listener.getsockname()[:2]
        announce(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    testing = asyncio.create_task(test_and_accept())
    await server.serve([listener])
    testing.cancel()
    with suppress(asyncio.CancelledError):
        await testing


@contextmanager
def _recorded_signals() -> Iterator[list[int]]:
    """Record SIGINT and SIGTERM: uvicorn stops at them, and raises them again when it has stopped."""
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(info[4][:2], family=info[0], backlog=_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CannotListen(f"{host}:{port}: cannot listen there ({reason}); choose another --port or --host") from error
    with listener:
        # asyncio leaves it off for a socket it is given. Without it, the body of a short answer waits on a kept
        # connection until the client acknowledges the head, 40 ms later.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener
