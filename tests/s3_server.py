"""An S3 server for tests and benchmarks: moto's, in a process of its own, that can be slow, busy and strict.

python s3_server.py [--delay-s 0.02] [--busy-every 5] prints its address, and knows one access key.
"""

import argparse
import itertools
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

KEY, SECRET, BUCKET = "carmask", "of-the-tests", "results"


def environment_of(address: str) -> dict[str, str]:
    """The variables with which S3's clients use a server."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        # Not those of the user.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@contextmanager
def serving(*options: object) -> Iterator[str]:
    """Run a server with one empty bucket for the block; its address."""
    command = [sys.executable, __file__, *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def stored(url: str) -> dict[str, bytes]:
    """Return every object below a folder, by its name there, hidden ones too."""
    import fsspec

    system, folder = fsspec.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    return {path.removeprefix(f"{folder}/"): system.cat_file(path) for path in system.find(folder)}


def main() -> None:
    """Serve until killed."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay-s", type=float, default=0.0)
    parser.add_argument("--busy-every", type=int, default=0)
    given = parser.parse_args()
    moto = DomainDispatcherApplication(create_backend_app)
    requests = itertools.count(1)

    def refuse(start_response: Any, status: str, code: str) -> list[bytes]:
        start_response(status, [("Content-Type", "application/xml")])
        return [f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()]

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        time.sleep(given.delay_s)
        if f"Credential={KEY}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            return refuse(start_response, "403 Forbidden", "InvalidAccessKeyId")
        if given.busy_every and next(requests) % given.busy_every == 0:
            return refuse(start_response, "503 Slow Down", "SlowDown")
        return moto(environ, start_response)

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Handler)
    os.environ |= environment_of(f"http://127.0.0.1:{server.port}")
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(BUCKET, "us-east-1")
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
