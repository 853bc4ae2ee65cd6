"""A proxy that adds a delay to each request of HTTP/1.1 on its way to a server on this machine, and counts requests."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_METHODS = frozenset({b"GET", b"PUT", b"HEAD", b"POST", b"DELETE"})


class DelayProxy:
    """Passes on what clients send to a port, after a delay. requests: how many of each method there were."""

    def __init__(self, port: int, delay_s: float) -> None:
        self._port, self._delay_s = port, delay_s
        self.requests: Counter[str] = Counter()

    async def handle(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        with suppress(ConnectionError):
            await asyncio.gather(self._pass_requests(client, to_server), _pass_answers(server, to_client))
        for writer in (to_server, to_client):
            writer.close()

    async def _pass_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            # Clients of a store wait for an answer before they send the next request, so a head begins a piece.
            method = data[:8].partition(b" ")[0]
            if method in _METHODS:
                self.requests[method.decode()] += 1
                await asyncio.sleep(self._delay_s)
            writer.write(data)
        writer.write_eof()


async def _pass_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


@contextmanager
def delaying(address: str, delay_s: float) -> Iterator[tuple[str, DelayProxy]]:
    """Run a proxy before `http://127.0.0.1:PORT` in a thread for the block; gives its address, and itself."""
    proxy = DelayProxy(int(address.rpartition(":")[2]), delay_s)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(proxy.handle, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", proxy
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
