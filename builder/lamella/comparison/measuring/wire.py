"""A TCP proxy that counts the bytes each way, and delays and limits them: the line between a machine and a server.

It runs as a process of its own (`python -m lamella.comparison.measuring.wire`), so that its time is not the comparison's. The counts lie in
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
from dataclasses import dataclass

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


class Limit:
    """One direction of a line, shared by its connections: it passes `rate` bytes a second, without bursts; 0 for any."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._free_at = 0.0
        self._lock = threading.Lock()

    def pass_through(self, amount: int) -> None:
        """Wait until `amount` bytes have passed."""
        if not self.rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + amount / self.rate
            until = self._free_at
        if until > now:
            time.sleep(until - now)


@dataclass(frozen=True, slots=True)
class Line:
    """What all connections share."""

    server: tuple[str, int]
    counts: Counts
    delay: float
    """Seconds, each way."""
    limits: tuple[Limit, Limit]
    """To the server, and from it."""


def serve(listener: socket.socket, line: Line) -> None:
    """Accept connections for ever, each joined with one to the line's server."""
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_join, args=(client, line), daemon=True).start()


def _join(client: socket.socket, line: Line) -> None:
    # The handshake's round trip, which the client does not wait for: its first bytes do.
    time.sleep(2 * line.delay)
    try:
        upstream = socket.create_connection(line.server)
    except OSError:
        client.close()
        return
    copy = _copy_late if line.delay else _copy
    with client, upstream:
        ends = (client, upstream)
        for each in ends:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threads = [
            threading.Thread(target=copy, args=(ends[way], ends[1 - way], way, line), daemon=True) for way in (0, 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _copy(source: socket.socket, target: socket.socket, way: int, line: Line) -> None:
    limit = line.limits[way]
    buffer = memoryview(bytearray(_LIMITED_CHUNK if limit.rate else _CHUNK))
    with contextlib.suppress(OSError):
        while length := source.recv_into(buffer):
            limit.pass_through(length)
            line.counts.add(way, length)
            target.sendall(buffer[:length])
    _end(target, socket.SHUT_WR)


def _copy_late(source: socket.socket, target: socket.socket, way: int, line: Line) -> None:
    waiting: queue.Queue[tuple[float, bytes]] = queue.Queue(_WAITING)

    def read() -> None:
        data = b"."
        while data:
            try:
                data = source.recv(_LIMITED_CHUNK)
            except OSError:
                data = b""
            line.limits[way].pass_through(len(data))
            waiting.put((time.monotonic() + line.delay, data))

    threading.Thread(target=read, daemon=True).start()
    while (due_and_data := waiting.get())[1]:
        due, data = due_and_data
        time.sleep(max(0, due - time.monotonic()))
        line.counts.add(way, len(data))
        try:
            target.sendall(data)
        except OSError:
            # The reader must come to its end, and not wait for room in the queue.
            _end(source, socket.SHUT_RD)
            while waiting.get()[1]:
                pass
            break
    _end(target, socket.SHUT_WR)


def _end(end: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(how)


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
        print(f"port {listener.getsockname()[1]}", flush=True)
        limits = (Limit(arguments.rate), Limit(arguments.rate))
        serve(listener, Line((host, int(port)), Counts(arguments.counts), arguments.delay, limits))


if __name__ == "__main__":
    main()
