"""Compile modules while their environment is still scanned, on processors that the scan leaves idle.

The processes are those of `bytecode`; their answers go to files without a name. A module is asked for by its paths
alone. What a scan finds out later, such as a source that ships rewritten, can make an answer useless, but not wrong:
`has` compares the digest of the source.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from itertools import islice
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from lamella.builder.cache_folder import cache_folder
from lamella.builder.content.bytecode import CLEAN, block_size, byte_code_path, command, installed_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lamella.builder.content.bytecode import Module
    from lamella.builder.environment import Interpreter

_MOST = 8
_HEADER = struct.Struct(">c32sI")
"""Of an answer: status, sha256 of the source, bytes of byte code."""
_START, _DIED = b"K", b"X"


class _Asked(NamedTuple):
    """A module, by its paths."""

    source: str
    """Path of the source in the image, without a leading slash."""
    path: str
    """Absolute path of the source on this disk."""
    installed: str
    """As `Module.installed`."""


class _Answer(NamedTuple):
    digest: str
    answers: int
    """File descriptor."""
    offset: int
    size: int
    """Bytes; 0 for a source that does not compile."""


@dataclass(frozen=True, slots=True)
class _Process:
    process: subprocess.Popen[bytes]
    answers: IO[bytes]
    blocks: Sequence[Sequence[_Asked]]


class Precompiler:
    """Processes that compile from `start` until `stop`, and their answers until `close`."""

    def __init__(self, cache: str | None = None) -> None:
        """`cache`: folder for the answers, as of a scan; None for the user's."""
        self._scratch = cache_folder(cache)
        self._about: tuple[Interpreter, str] | None = None
        self._answers: dict[tuple[str, str], _Answer] = {}
        self._processes: list[_Process] = []

    def start(self, interpreter: Interpreter, image_prefix: str, sources: Iterable[tuple[str, str]]) -> None:
        """Start to compile `sources`: path relative to the prefix, and absolute path.

        Without a processor to spare, or room for the answers, nothing is started, and a build compiles all.
        """
        self._about = interpreter, image_prefix
        number = min(_MOST, (os.cpu_count() or 1) // 2)
        if number and interpreter.compiler and sys.platform != "win32":
            blocks = list(_blocks(list(_asked(interpreter, image_prefix, sources))))
            with contextlib.suppress(OSError):
                for first in range(min(number, len(blocks))):
                    self._processes.append(_started(interpreter, blocks[first::number], self._scratch))

    def stop(self, interpreter: Interpreter, image_prefix: str) -> Precompiler | None:
        """End the processes, and return this with their answers; None if they are for another interpreter or prefix."""
        for each in self._processes:
            _kill(each.process)
            self._answers.update(_answered(each))
        return self if self._answers and self._about == (interpreter, image_prefix) else None

    def has(self, module: Module) -> bool:
        """See `Known`."""
        found = self._answers.get((module.source.path, module.installed))
        return found is not None and found.digest == module.source.digest

    def read(self, module: Module) -> bytes | None:
        """See `Known`."""
        found = self._answers[module.source.path, module.installed]
        return os.pread(found.answers, found.size, found.offset) if found.size else None

    def close(self) -> None:
        """End the processes, and forget their answers. Idempotent."""
        self._answers.clear()
        while self._processes:
            each = self._processes.pop()
            _kill(each.process)
            each.answers.close()


def _asked(interpreter: Interpreter, image_prefix: str, sources: Iterable[tuple[str, str]]) -> Iterator[_Asked]:
    """Modules among `sources`, those of small packages first: beside a fork they take the least time."""
    root, below = f"{interpreter.stdlib}/", image_prefix.strip("/")
    found: dict[str, list[_Asked]] = {}
    for path, source in sources:
        if byte_code_path(path, root, interpreter.cache_tag):
            package = path.removeprefix(f"{interpreter.purelib}/").partition("/")[0]
            asked = _Asked(f"{below}/{path}", source, installed_path(source, interpreter.cache_tag))
            found.setdefault(package, []).append(asked)
    for modules in sorted(found.values(), key=len):
        yield from modules


def _blocks(asked: Sequence[_Asked]) -> Iterator[Sequence[_Asked]]:
    rest = iter(asked)
    while first := next(rest, None):
        yield [first, *islice(rest, block_size(first.installed) - 1)]


def _started(interpreter: Interpreter, blocks: Sequence[Sequence[_Asked]], scratch: str) -> _Process:
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    answers = cast("IO[bytes]", tempfile.TemporaryFile(dir=scratch))  # noqa: SIM115 - closed by `Precompiler.close`
    process = subprocess.Popen(
        [*command(interpreter), "--idle"],
        stdin=subprocess.PIPE,
        stdout=answers,
        stderr=subprocess.DEVNULL,
        env=CLEAN,
        cwd=os.path.abspath(os.sep),
    )
    # The pipe holds a part of a request; and a process whose parent was killed reads its end.
    threading.Thread(target=_ask, args=(process, blocks), name="lamella-precompile", daemon=True).start()
    return _Process(process, answers, blocks)


def _ask(process: subprocess.Popen[bytes], blocks: Iterable[Sequence[_Asked]]) -> None:
    stream = cast("IO[bytes]", process.stdin)
    with contextlib.suppress(OSError, ValueError):  # it was killed, or died
        for block in blocks:
            request = json.dumps([(f"/{each.source}", each.path, 0, each.installed, False) for each in block]).encode()
            stream.write(b"R" + struct.pack(">I", len(request)) + request)
            stream.flush()
    with contextlib.suppress(OSError):
        stream.close()


def _answered(process: _Process) -> Iterator[tuple[tuple[str, str], _Answer]]:
    """Answers by source and installed byte code, up to the one that was cut short."""
    answers = process.answers.fileno()
    if os.pread(answers, 1, 0) != _START:
        return
    offset, length = 1, os.fstat(answers).st_size
    for block in process.blocks:
        for asked in block:
            header = os.pread(answers, _HEADER.size, offset)
            if header[:1] == _DIED:
                break
            if len(header) < _HEADER.size:
                return
            _, digest, size = _HEADER.unpack(header)
            offset += _HEADER.size
            if offset + size > length:
                return
            yield (asked.source, asked.installed), _Answer(digest.hex(), answers, offset, size)
            offset += size
        if os.pread(answers, 1, offset) == _DIED:
            offset += 1


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        # Its group, with its child; it has none before it has a group of its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
