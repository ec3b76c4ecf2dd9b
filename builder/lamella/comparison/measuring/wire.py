"""A TCP proxy that counts the bytes each way, and delays and limits them: the line between a machine and a server.

It runs as a process of its own (`python -m lamella.comparison.measuring.wire`), so that its time is nobody's. The counts lie in
a file that both processes map.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import queue
import socket
import struct
import threading
import time

_COUNTS = struct.Struct("=QQ")
_CHUNK = 256 * 1024
_LIMITED_CHUNK = 16 * 1024
"""Bytes at a time on a limited line, so that several connections share it evenly."""
_WAITING = 512
"""Chunks under way on a delayed line."""


class Counts:
    """Two totals in a file: bytes to the server, bytes from it."""

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(descriptor, _COUNTS.size)
        self._map = mmap.mmap(descriptor, _COUNTS.size)
        os.close(descriptor)
        self._lock = threading.Lock()

    def read(self) -> tuple[int, int]:
        """Return (to, from)."""
        up, down = _COUNTS.unpack(self._map[:])
        return up, down

    def add(self, way: int, amount: int) -> None:
        """Add to one way: 0 to the server, 1 from it."""
        with self._lock:
            totals = list(self.read())
            totals[way] += amount
            self._map[:] = _COUNTS.pack(*totals)

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()


class Line:
    """One direction of the line, shared by its connections. It passes `rate` bytes a second, without bursts."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0
        self._lock = threading.Lock()

    def pass_through(self, amount: int) -> None:
        """Wait until `amount` bytes have passed."""
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + amount / self._rate
            until = self._free_at
        if until > now:
            time.sleep(until - now)


def _copy(source: socket.socket, target: socket.socket, way: int, counts: Counts, line: Line, limited: bool) -> None:
    buffer = memoryview(bytearray(_LIMITED_CHUNK if limited else _CHUNK))
    with contextlib.suppress(OSError):
        while length := source.recv_into(buffer):
            line.pass_through(length)
            counts.add(way, length)
            target.sendall(buffer[:length])
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _copy_late(
    source: socket.socket, target: socket.socket, way: int, counts: Counts, line: Line, delay: float
) -> None:
    waiting: queue.Queue[tuple[float, bytes]] = queue.Queue(_WAITING)

    def read() -> None:
        data = b"."
        while data:
            try:
                data = source.recv(_LIMITED_CHUNK)
            except OSError:
                data = b""
            line.pass_through(len(data))
            waiting.put((time.monotonic() + delay, data))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    while True:
        due, data = waiting.get()
        if not data:
            break
        time.sleep(max(0, due - time.monotonic()))
        counts.add(way, len(data))
        try:
            target.sendall(data)
        except OSError:
            # The reader must not wait for room that nobody makes.
            with contextlib.suppress(OSError):
                source.shutdown(socket.SHUT_RD)
            while waiting.get()[1]:
                pass
            break
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def serve(listener: socket.socket, server: tuple[str, int], counts: Counts, delay: float, rate: float) -> None:
    """Accept connections for ever, each joined with one to `server`. `delay` in seconds and `rate` in bytes a second, each way."""
    lines = (Line(rate), Line(rate))
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_join, args=(client, server, counts, lines, delay, bool(rate)), daemon=True).start()


def _join(
    client: socket.socket,
    server: tuple[str, int],
    counts: Counts,
    lines: tuple[Line, Line],
    delay: float,
    limited: bool,
) -> None:
    try:
        upstream = socket.create_connection(server)
    except OSError:
        client.close()
        return
    with client, upstream:
        ends = (client, upstream)
        for each in ends:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threads = [
            threading.Thread(
                target=_copy_late if delay else _copy,
                args=(ends[way], ends[1 - way], way, counts, lines[way], delay if delay else limited),
                daemon=True,
            )
            for way in (0, 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def main() -> None:
    """Serve as the command line says, and print the port."""
    parser = argparse.ArgumentParser()
    parser.add_argument("server", help="HOST:PORT")
    parser.add_argument("counts", help="file of the counts")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds, each way")
    parser.add_argument("--rate", type=float, default=0.0, help="bytes a second, each way")
    arguments = parser.parse_args()
    host, _, port = arguments.server.rpartition(":")
    with socket.create_server((arguments.address, 0), backlog=512) as listener:
        print(listener.getsockname()[1], flush=True)
        serve(listener, (host, int(port)), Counts(arguments.counts), arguments.delay, arguments.rate)


if __name__ == "__main__":
    main()
