"""Compile modules while their environment is still scanned, on processors that the scan leaves idle.

The processes are those of `bytecode`; their answers go to files without a name. A module is asked for by its paths
alone. What a scan finds out later, such as a source that ships rewritten, can make an answer useless, but not wrong:
`has` compares the digest of the source.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from lamella.builder.cache_folder import cache_folder
from lamella.builder.content.bytecode import CLEAN, block_size, byte_code_path, command, installed_path
from lamella.builder.environment import File

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lamella.builder.content.bytecode import Module
    from lamella.builder.environment import Interpreter

_MOST = 8
_ROOM = 64 << 10
"""Bytes of free space for each module, several times an answer's: the scan and the build write to the same disk."""
_Source = tuple[str, str]
"""Path relative to the prefix, and absolute path on this disk. No new text: an environment has tens of thousands."""
_HEADER = struct.Struct(">c32sI")
"""Of an answer: status, sha256 of the source, bytes of byte code."""
_START = b"K"


class _Answer(NamedTuple):
    path: str
    """Path of the source relative to the prefix."""
    digest: bytes
    """sha256 of the source."""
    answers: int
    """File descriptor."""
    offset: int
    size: int
    """Bytes; 0 for a source that does not compile."""


@dataclass(frozen=True, slots=True)
class _Process:
    process: subprocess.Popen[bytes]
    answers: IO[bytes]
    blocks: Sequence[Sequence[_Source]]


class Precompiler:
    """Processes that compile from `start` until `stop`, and their answers until `close`."""

    def __init__(self, cache: str | None = None) -> None:
        """`cache`: folder for the answers, as of a scan; None for the user's."""
        self._cache = cache
        self._about: tuple[Interpreter, str] | None = None
        self._answers: dict[str, _Answer] = {}
        self._processes: list[_Process] = []

    def start(self, interpreter: Interpreter, image_prefix: str, sources: Iterable[_Source]) -> None:
        """Start to compile `sources`: path relative to the prefix, and absolute path. Forgets an earlier start.

        Without a processor to spare, or room for the answers, nothing is started, and a build compiles all.
        """
        self.close()
        self._about = interpreter, image_prefix
        number = min(_MOST, (os.cpu_count() or 1) // 2)
        if number and interpreter.compiler and sys.platform != "win32":
            modules = list(_modules(interpreter, sources))
            blocks = list(_blocks(modules, interpreter))
            scratch = cache_folder(self._cache)
            with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: no room for a thread
                os.makedirs(scratch, mode=0o700, exist_ok=True)
                if shutil.disk_usage(scratch).free < _ROOM * len(modules):
                    return
                for first in range(min(number, len(blocks))):
                    started = _started(interpreter, blocks[first::number], scratch)
                    self._processes.append(started)
                    _request(started, image_prefix, interpreter)

    def stop(self, interpreter: Interpreter, image_prefix: str) -> Precompiler | None:
        """End the processes, and return this with their answers; None if they are for another interpreter or prefix."""
        for each in self._processes:
            _kill(each.process)
            self._answers.update(_answered(each))
        return self if self._answers and self._about == (interpreter, image_prefix) else None

    def has(self, module: Module) -> bool:
        """See `Known`."""
        source = module.source.content
        # Code that people edit has no `installed`: it is not known by the times of its file.
        found = self._answers.get(source.source) if module.installed and isinstance(source, File) else None
        if not found or not self._about:
            return False
        path = f"{self._about[1].strip('/')}/{found.path}"
        return module.source.path == path and module.source.digest == found.digest.hex()

    def read(self, module: Module) -> bytes | None:
        """See `Known`."""
        source = cast("File", module.source.content)
        found = self._answers[source.source]
        return os.pread(found.answers, found.size, found.offset) if found.size else None

    def close(self) -> None:
        """End the processes, and forget their answers. Idempotent."""
        self._answers.clear()
        while self._processes:
            each = self._processes.pop()
            _kill(each.process)
            each.answers.close()


def _modules(interpreter: Interpreter, sources: Iterable[_Source]) -> Iterator[_Source]:
    """Modules among `sources`, those of small packages first: beside a fork they take the least time."""
    root, site = f"{interpreter.stdlib}/", f"{interpreter.purelib}/"
    found: dict[str, list[_Source]] = {}
    for source in sources:
        if byte_code_path(source[0], root, interpreter.cache_tag):
            package = source[0].removeprefix(site).partition("/")[0]
            found.setdefault(package, []).append(source)
    for modules in sorted(found.values(), key=len):
        yield from modules


def _blocks(sources: Sequence[_Source], interpreter: Interpreter) -> Iterator[Sequence[_Source]]:
    rest = iter(sources)
    while first := next(rest, None):
        size = block_size(installed_path(first[1], interpreter.cache_tag))
        yield [first, *islice(rest, size - 1)]


def _started(interpreter: Interpreter, blocks: Sequence[Sequence[_Source]], scratch: str) -> _Process:
    answers = cast("IO[bytes]", tempfile.TemporaryFile(dir=scratch))  # noqa: SIM115 - closed by `Precompiler.close`
    process = subprocess.Popen(
        [*command(interpreter), "--idle"],
        stdin=subprocess.PIPE,
        stdout=answers,
        stderr=subprocess.DEVNULL,
        env=CLEAN,
        cwd=os.path.abspath(os.sep),
    )
    return _Process(process, answers, blocks)


def _request(started: _Process, image_prefix: str, interpreter: Interpreter) -> None:
    requests = (_encoded(block, image_prefix, interpreter) for block in started.blocks)
    # The pipe holds a part of them; and a process whose parent was killed reads its end.
    thread = threading.Thread(target=_send, args=(started.process, requests), name="lamella-precompile", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        _send(started.process, ())
        raise


def _encoded(block: Sequence[_Source], image_prefix: str, interpreter: Interpreter) -> bytes:
    asked = [
        (f"{image_prefix}/{path}", source, 0, installed_path(source, interpreter.cache_tag), False)
        for path, source in block
    ]
    encoded = json.dumps(asked).encode()
    return b"R" + struct.pack(">I", len(encoded)) + encoded


def _send(process: subprocess.Popen[bytes], requests: Iterable[bytes]) -> None:
    stream = cast("IO[bytes]", process.stdin)
    with contextlib.suppress(OSError, ValueError):  # it was killed, or died
        for request in requests:
            stream.write(request)
            stream.flush()
    with contextlib.suppress(OSError):
        stream.close()


def _answered(process: _Process) -> Iterator[tuple[str, _Answer]]:
    """Answers by path of the source, up to the one that was cut short."""
    answers = process.answers.fileno()
    if os.pread(answers, 1, 0) != _START:
        return
    offset, length = 1, os.fstat(answers).st_size
    for path, source in chain.from_iterable(process.blocks):
        header = os.pread(answers, _HEADER.size, offset)
        if len(header) < _HEADER.size:
            return
        _, digest, size = _HEADER.unpack(header)
        offset += _HEADER.size
        if offset + size > length:
            return
        yield source, _Answer(path, digest, answers, offset, size)
        offset += size


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        # First the process, which then forks no more, and then its group, with its child: it has none before it has a
        # group of its own. macOS refuses a group of which only a zombie is left. `Popen.kill` may reap the process, and
        # another group could get its number.
        for kill in (os.kill, os.killpg):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(process.pid, signal.SIGKILL)
        process.wait()
