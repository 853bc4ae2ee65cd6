"""`carmask serve`."""

import os
import re
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from carmask.cli import INTERRUPTED
from carmask.cli.console import print_line, print_remark
from carmask.cli.network import NetworkOptions
from carmask.cli.options import BatchSize, Flag
from carmask.errors import CarmaskError
from carmask.serving.settings import Batching, Limits

_NETWORK = NetworkOptions()
_LIMITS = Limits()
_ORIGIN = re.compile(r"https?://[^/\s]+")
_TOKEN_VARIABLE = "CARMASK_TOKEN"  # noqa: S105 - a name, not a token


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    cors: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    quiet: Flag = False,
    network: NetworkOptions = _NETWORK,
    batch_size: BatchSize = 4,
    batch_wait_ms: Annotated[float, Parameter(validator=Number(gte=0))] = 4,
    workers: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    limits: Annotated[Limits, Parameter(name="*")] = _LIMITS,
) -> int:
    """Offer a web page and an HTTP service that cut vehicles out of photos.

    The page is at the address that is printed, the service at /v1/segment below it; /docs says how programs use it.
    Nothing that is sent is kept, and nothing is written to disk. Ctrl-C or SIGTERM: what is there is finished first.

    Args:
        host: Whom to listen to: 127.0.0.1 is this machine alone, 0.0.0.0 and :: are everybody who reaches it.
        port: 0 is any that is free.
        token_file: A file with a token that clients have to send, as `Authorization: Bearer TOKEN`. The environment's
            variable CARMASK_TOKEN may hold it instead.
        cors: Another site (https://cars.example.org) whose pages may use the service; given once for each.
        quiet: Print no line for each request.
        network: Which network, and how it runs.
        batch_size: Photos that pass through the network together.
        batch_wait_ms: How long a photo waits for others to join it, in milliseconds.
        workers: Threads that decode photos, and as many that draw results; one for each processor if not given.
        limits: How much of everything is taken.

    """
    from carmask.serving.app import Access
    from carmask.serving.server import Place, run

    limits.check()
    _check_sites(cors)
    place = Place(host, port)
    access = Access(_read_token(token_file), cors)
    segmenter = network.load()
    print_line(f"{segmenter.name}: {segmenter.describe_engine()}")
    if not place.is_local and access.token is None:
        print_remark(
            f"whoever reaches {host} may use this service; --token-file FILE lets in only those who have a token",
            warning=True,
        )
    was_interrupted = run(
        segmenter,
        place,
        limits,
        Batching(batch_size, batch_wait_ms, workers),
        access,
        is_logged=not quiet,
        announce=lambda address: print_line(f"{address} is ready for photos; Ctrl-C ends it"),
    )
    print_remark("stopped")
    return INTERRUPTED if was_interrupted else 0


def _check_sites(origins: tuple[str, ...]) -> None:
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise CarmaskError(f"--cors {origin}: give a site as https://cars.example.org, without a path")


def _read_token(token_file: Path | None) -> str | None:
    """The token that clients have to send. It is never an option: every user of a machine sees those."""
    if token_file is None:
        token = os.environ.get(_TOKEN_VARIABLE)
        source = f"the variable {_TOKEN_VARIABLE}"
    else:
        source = str(token_file)
        try:
            token = token_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CarmaskError(f"{token_file}: cannot be read ({error}); name a text file with the token") from error
    if token is None:
        return None
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise CarmaskError(f"{source}: holds no token; write one of letters, digits and signs, in one line")
    return token
