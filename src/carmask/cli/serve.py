"""`carmask serve`."""

import os
import re
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from carmask.cli import INTERRUPTED
from carmask.cli.console import print_line, print_remark
from carmask.cli.options import Flag, NetworkOptions
from carmask.errors import CarmaskError
from carmask.serving.log import LOG, LogFormat, set_up_log
from carmask.serving.settings import ServiceLimits

_NETWORK = NetworkOptions()
_LIMITS = ServiceLimits()
_MAX_PORT = 65535
_ORIGIN = re.compile(r"https?://[^/\s]+")
_TOKEN_VARIABLE = "CARMASK_TOKEN"  # noqa: S105 - a name, not a token


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    cors: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    root_path: str = "",
    quiet: Flag = False,
    log_format: LogFormat = "text",
    network: NetworkOptions = _NETWORK,
    limits: Annotated[ServiceLimits, Parameter(name="*")] = _LIMITS,
) -> int:
    """Serve a web page and an HTTP API that cut vehicles out of photos.

    The command prints the URL of the page. Below it, the API is at /v1/segment, and its description at /docs. The
    service stores nothing and writes nothing to disk. Ctrl-C or SIGTERM stops it after the requests in progress.

    Args:
        host: The address to listen on. Only this machine can reach 127.0.0.1; all others can reach 0.0.0.0 and ::.
        port: 0 is any free port.
        token_file: A file with a token that clients must send, as `Authorization: Bearer TOKEN`. The environment
            variable CARMASK_TOKEN can hold it instead.
        cors: Another site (https://cars.example.org) whose pages may use the service; repeat it for more sites.
        root_path: The path below which a proxy serves the service (/cars), for the examples on /docs. The proxy's
            header X-Forwarded-Prefix has the same effect.
        quiet: Do not log requests.
        log_format: Format of the log on standard error: lines of text, or json with an object per line.
        network: Which network, and how it runs.
        limits: The limits of requests, connections, memory and batches.
    """
    from carmask.serving.app import ROOT_PATH
    from carmask.serving.server import run

    if not 0 <= port <= _MAX_PORT:
        raise CarmaskError(f"--port {port}: give a number from 1 to {_MAX_PORT}, or 0 for any free port")
    if root_path and not ROOT_PATH.fullmatch(root_path):
        raise CarmaskError(f"--root-path {root_path}: write a path such as /cars")
    for origin in cors:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise CarmaskError(f"--cors {origin}: write a site as https://cars.example.org, without a path")
    token = _read_token(token_file)
    segmenter = network.load()
    # In JSON all of standard error is the log.
    set_up_log(log_format)
    print_line(f"{segmenter.name}: {segmenter.describe_engine()}")
    is_local = host in ("localhost", "::1") or host.startswith("127.")
    if not is_local and token is None:
        open_to_all = f"everyone who can reach {host} can use this service; --token-file FILE requires a token"
        if log_format == "json":
            LOG.warning(open_to_all)
        else:
            print_remark(open_to_all, warning=True)
    was_interrupted = run(
        segmenter,
        host,
        port,
        limits,
        token=token,
        origins=cors,
        log_requests=not quiet,
        root_path=root_path,
        announce=lambda url: print_line(f"{url} is ready for photos; Ctrl-C stops it"),
    )
    if log_format == "json":
        LOG.warning("stopped")
    else:
        print_remark("stopped")
    return INTERRUPTED if was_interrupted else 0


def _read_token(token_file: Path | None) -> str | None:
    """The token that clients must send. Not an option itself: every user of a machine can see those."""
    if token_file is None:
        source, token = f"the environment variable {_TOKEN_VARIABLE}", os.environ.get(_TOKEN_VARIABLE)
    else:
        source, token = str(token_file), token_file.read_text(encoding="utf-8", errors="replace")
    if token is None:
        return None
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise CarmaskError(f"{source}: contains no token; write one line of printable ASCII characters")
    return token
