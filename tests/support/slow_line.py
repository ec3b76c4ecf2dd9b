"""A long line to a server on loopback: each byte arrives later, in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_REQUEST = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE) (\S+) HTTP/1\.1\r\n")


class SlowLine:
    """A TCP proxy before `server`, `HOST:PORT`, with a round trip of `round_trip` seconds."""

    def __init__(self, server: str, round_trip: float) -> None:
        self._host, _, port = server.rpartition(":")
        self._port = int(port)
        self._delay = round_trip / 2
        self.requests: list[str] = []
        """Method and path of each HTTP request that a client has sent."""
        self._writers: list[asyncio.StreamWriter] = []
        self.connections = 0
        """Connections that clients have opened; each costs a round trip more."""

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """Serve in a thread until the block ends; yields `HOST:PORT`."""
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", 0))
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            server.close()
            for task in (tasks := asyncio.all_tasks(loop)):
                task.cancel()
            if tasks:  # gather of nothing belongs to no loop
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            for writer in self._writers:
                writer.transport.abort()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        # The handshake of TCP.
        await asyncio.sleep(2 * self._delay)
        there, here = await asyncio.open_connection(self._host, self._port)
        self._writers += [here, writer]
        # Cancelled at the end of the block, with connections that clients keep open.
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.gather(self._copy(reader, here, counted=True), self._copy(there, writer, counted=False))

    async def _copy(self, source: asyncio.StreamReader, goal: asyncio.StreamWriter, *, counted: bool) -> None:
        loop, last = asyncio.get_running_loop(), 0.0
        while data := await source.read(1 << 16):
            if counted and (found := _REQUEST.match(data)):
                self.requests.append(f"{found[1].decode()} {found[2].decode()}")
            # Strictly later, so that two pieces never change their order.
            last = max(loop.time() + self._delay, last + 1e-6)
            loop.call_at(last, goal.write, data)
        loop.call_at(max(loop.time() + self._delay, last + 1e-6), goal.close)
