"""Restart two processes of the service behind nginx, one at a time and again and again, while clients send photos.

    python benchmarks/rolling_restart.py PHOTO [--requests 3000] [--restarts 8] [--clients 8] [--no-record] [-- OPTIONS]

nginx runs with deploy/nginx.conf, in which only the ports are others. A request is lost if its response is not the one
that the first had. Writes docs/results/rolling_restart.json; ends with status 1 if a request was lost.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path
from statistics import median, quantiles

from record import record

SITE = Path(__file__).parent.parent / "deploy" / "nginx.conf"
READY_S = 120.0
MAIN = """
daemon off; {user} pid {folder}/pid; error_log {folder}/error.log; events {{ worker_connections 256; }}
http {{
    log_format upstreams '$status $upstream_addr'; access_log {folder}/access.log upstreams;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/carmask.conf;
}}
"""


def nginx_program() -> str | None:
    """Debian has it where only root looks."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def free_ports(number: int) -> list[int]:
    """Ports that nobody uses now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [one.getsockname()[1] for one in sockets]


class Process:
    """`carmask serve` on one port."""

    def __init__(self, port: int, options: list[str]) -> None:
        self._port = port
        self._command = [sys.executable, "-m", "carmask", "serve", "--quiet", "--port", str(port), *options]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        await_ready(self._port, "/readyz")

    def restart(self) -> None:
        """Stop it as systemd, Docker and Kubernetes do, and start it again."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait()
        if status:
            sys.exit(f"the service ended with status {status}")
        self.start()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


def await_ready(port: int, path: str) -> None:
    """Wait for status 200."""
    deadline_s = time.monotonic() + READY_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline_s:
                sys.exit(f"port {port} is not ready")
            time.sleep(0.05)


@contextmanager
def nginx(program: str, folder: Path, port: int, services: list[int]) -> Iterator[None]:
    """Nginx with the committed configuration, on other ports."""
    site = SITE.read_text().replace("listen 80;", f"listen 127.0.0.1:{port};")
    for documented, used in zip(("8001", "8002"), services, strict=True):
        site = site.replace(f"127.0.0.1:{documented} ", f"127.0.0.1:{used} ")
    (folder / "carmask.conf").write_text(site)
    (folder / "main.conf").write_text(MAIN.format(folder=folder, user="user root;" if os.geteuid() == 0 else ""))
    process = subprocess.Popen([program, "-e", folder / "error.log", "-c", folder / "main.conf"])
    try:
        await_ready(port, "/healthz")
        yield
    finally:
        process.terminate()
        process.wait()


class Clients:
    """Send the same photo again and again over connections that are kept, and compare the responses."""

    def __init__(self, port: int, photo: bytes) -> None:
        self._port, self._photo = port, photo
        self._numbers = count()
        self.expected = self._send(HTTPConnection("127.0.0.1", port, timeout=60))
        self.seconds: list[float] = []
        self.lost: Counter[str] = Counter()

    def run(self, enough: threading.Event) -> None:
        """One client."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not enough.is_set():
            started_s = time.perf_counter()
            try:
                outcome = "" if self._send(connection) == self.expected else "another result"
            except (OSError, HTTPException, ValueError) as error:
                outcome = repr(error)
                connection.close()
            self.seconds.append(time.perf_counter() - started_s)
            if outcome:
                self.lost[outcome] += 1

    def _send(self, connection: HTTPConnection) -> bytes:
        headers = {"Content-Type": "application/octet-stream"}
        connection.request("POST", "/v1/segment?kind=mask", self._photo, headers)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise ValueError(f"status {response.status}: {body[:300]!r}")
        return body


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--restarts", type=int, default=8)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--no-record", action="store_true")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given, options = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1 :]
    program = nginx_program()
    if program is None:
        sys.exit("nginx is not installed; install Debian's package nginx-light")
    port, *services = free_ports(3)
    enough = threading.Event()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        processes = [Process(service, options) for service in services]
        for process in processes:
            stack.callback(process.kill)
        stack.enter_context(nginx(program, Path(name), port, services))
        clients = Clients(port, given.photo.read_bytes())
        threads = [threading.Thread(target=clients.run, args=(enough,)) for _ in range(given.clients)]
        for thread in threads:
            thread.start()
        restarts = 0
        while restarts < given.restarts or len(clients.seconds) < given.requests:
            time.sleep(0.2)
            processes[restarts % 2].restart()
            restarts += 1
        enough.set()
        for thread in threads:
            thread.join()
        asked_twice = len(re.findall(r", ", (Path(name) / "access.log").read_text()))
    figures = {
        "requests": len(clients.seconds),
        "lost": sum(clients.lost.values()),
        "restarts": restarts,
        "clients": given.clients,
        "sent_to_the_other_process": asked_twice,
        "median_s": round(median(clients.seconds), 4),
        "p95_s": round(quantiles(clients.seconds, n=20)[-1], 4),
        "slowest_s": round(max(clients.seconds), 4),
        "options": options,
    }
    print(figures)
    for outcome, times in clients.lost.most_common(5):
        print(f"{times} times: {outcome}")
    if not given.no_record:
        record("rolling_restart", figures)
    sys.exit(1 if clients.lost else 0)


if __name__ == "__main__":
    main()
