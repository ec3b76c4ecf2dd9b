from __future__ import annotations

import socket
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from lamella.comparison.measuring.wire import Counts, Limit, Line, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that answers one connection with what it got twice."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                got = b"".join(iter(lambda: client.recv(65536), b""))
                client.sendall(2 * got)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listener.getsockname()
        thread.join(10)


def passed(line: Line, sent: bytes) -> bytes:
    """What comes back over the line."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener, line), daemon=True).start()
    with socket.create_connection(listener.getsockname()) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_a_line_counts_bytes_each_way_and_passes_them_unchanged(echo: tuple[str, int], tmp_path: Path) -> None:
    with closing(Counts(str(tmp_path / "counts"))) as counts:
        sent = bytes(range(256)) * 3000
        assert passed(Line(echo, counts, 0, (Limit(0), Limit(0))), sent) == 2 * sent
        assert counts.read() == (len(sent), 2 * len(sent))


def test_another_process_s_map_of_the_counts_shows_them(tmp_path: Path) -> None:
    with closing(Counts(str(tmp_path / "counts"))) as writer, closing(Counts(str(tmp_path / "counts"))) as reader:
        writer.add(0, 7)
        writer.add(1, 5)
        writer.add(1, 5)
        assert reader.read() == (7, 10)


def test_a_delayed_line_takes_the_delay_each_way_and_both_to_connect(echo: tuple[str, int], tmp_path: Path) -> None:
    began = time.monotonic()
    with closing(Counts(str(tmp_path / "counts"))) as counts:
        assert passed(Line(echo, counts, 0.03, (Limit(0), Limit(0))), b"x") == b"xx"
    assert time.monotonic() - began >= 0.12


def test_a_limited_line_passes_no_more_than_its_rate() -> None:
    limit = Limit(1e6)
    began = time.monotonic()
    for _ in range(5):
        limit.pass_through(10_000)
    assert time.monotonic() - began >= 0.05
