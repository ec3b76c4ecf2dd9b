"""Progress without a terminal: lines for long tasks, nothing for short ones."""

from __future__ import annotations

import threading

from lamella.cli.progress import Lines


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_short_task_prints_nothing() -> None:
    printed: list[str] = []
    lines = Lines(printed.append, Clock())
    lines.begin("upload", 1000, "B")
    lines.advance("upload", 1000)
    lines.end("upload")
    assert printed == []


def test_a_long_task_prints_amount_share_rate_and_time_left() -> None:
    printed: list[str] = []
    clock = Clock()
    lines = Lines(printed.append, clock)
    lines.begin("upload", 100_000_000, "B")
    for _ in range(16):
        clock.now += 1
        lines.advance("upload", 5_000_000)
    lines.end("upload")
    assert printed == [
        "upload: 25 MB of 100 MB (25 %), 5.0 MB/s, 15.0 s left",
        "upload: 75 MB of 100 MB (75 %), 5.0 MB/s, 5.00 s left",
        "upload: 80 MB in 16.0 s",
    ]


def test_the_lines_of_a_task_become_rarer_up_to_one_a_minute() -> None:
    printed: list[str] = []
    clock = Clock()
    lines = Lines(lambda _: printed.append(str(clock.now - 100)), clock)
    lines.begin("upload", None, "B")
    for _ in range(300):
        clock.now += 1
        lines.advance("upload", 1)
    assert printed == ["5.0", "15.0", "35.0", "75.0", "135.0", "195.0", "255.0"]


def test_a_task_of_unknown_size_prints_the_amount_done() -> None:
    printed: list[str] = []
    clock = Clock()
    lines = Lines(printed.append, clock)
    lines.begin("scan", None, "files")
    clock.now += 6
    lines.advance("scan", 1)
    clock.now += 12
    lines.advance("scan", 4999)
    assert printed == ["scan: 1 file", "scan: 5,000 files"]


def test_amounts_of_many_threads_add_up() -> None:
    printed: list[str] = []
    clock = Clock()
    lines = Lines(printed.append, clock)
    lines.begin("upload", None, "B")

    def work() -> None:
        for _ in range(1000):
            lines.advance("upload", 1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.now += 10
    lines.advance("upload", 0)
    assert printed == ["upload: 8.0 kB, 800 B/s"]


def test_an_unknown_task_is_ignored() -> None:
    printed: list[str] = []
    lines = Lines(printed.append, Clock())
    lines.advance("upload", 1)
    lines.end("upload")
    assert printed == []
