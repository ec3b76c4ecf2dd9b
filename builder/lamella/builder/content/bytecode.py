"""Compile a package's modules with the environment's own interpreter, to the same bytes on every run.

The files are `unchecked-hash` pycs (PEP 552): nodes neither compile at import nor read a source. A
source that contains the image prefix, which a node may replace, gets a `checked-hash` pyc. Byte code
that an installer compiled is used: loaded and written again, it has the same bytes as our own.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import struct
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import groupby
from typing import IO, TYPE_CHECKING, Protocol, cast

from lamella.builder.content.entry import Rewritten, changed, read_entry
from lamella.builder.environment import File
from lamella.builder.errors import CannotBuild

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lamella.builder.content.entry import Entry
    from lamella.builder.environment import Interpreter

BLOCK = 64
"""Maximum number of modules per process, before the memory that compiling leaves behind makes it slow."""
_BLOCK_INSTALLED = 512
"""The same for byte code on disk, of which nothing stays in memory: a fork costs as much as ten modules."""
_PIPE = 1 << 20
"""Bytes of answers that a worker may be ahead of their reader."""

_TESTS = frozenset({"test", "tests"})
"""Folders of modules that ship as source only. A third of an environment's code is its packages' tests,
rarely imported on nodes, and compiling takes most of a first push. Part of the layer format."""

_KILLED = (-9, 137)
"""Exit codes: of a process that SIGKILL ended, and of one whose child it did."""
_WORKER = os.path.join(os.path.dirname(__file__), "_compile_worker.py")
# The order of a frozenset follows the hash seed. No setting of the user reaches the compiler.
CLEAN = {"PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8", "PATH": os.defpath}


@dataclass(frozen=True, slots=True)
class Module:
    """A source of the layer, and the path of its byte code there."""

    path: str
    """Path of the byte code, as `Entry.path`."""
    source: Entry
    installed: str = ""
    """Path where an installer or Python may have left its byte code; empty for none."""


def modules(
    entries: Sequence[Entry], interpreter: Interpreter, image_prefix: str, *, installed: bool = False
) -> list[Module]:
    """Sources among `entries` that Python can import by name, without packages' tests, sorted by pyc path.

    With `installed`, byte code on disk may be used. Not for code that people edit: a pyc identifies its
    source by size and by time in whole seconds.
    """
    if not interpreter.compiler:
        return []
    root = f"{image_prefix.strip('/')}/{interpreter.stdlib}/"
    there = {entry.path for entry in entries}
    found = []
    for entry in entries:
        path = byte_code_path(entry.path, root, interpreter.cache_tag) if entry.target is None else ""
        # A source that ships rewritten has no matching byte code on this disk.
        on_disk = entry.content.source if installed and isinstance(entry.content, File) else ""
        if path and path not in there:
            found.append(Module(path, entry, installed_path(on_disk, interpreter.cache_tag) if on_disk else ""))
    return sorted(found, key=lambda module: module.path.encode("utf-8", "surrogateescape"))


def byte_code_path(source: str, root: str, cache_tag: str) -> str:
    """Return where the byte code of a source ships; empty for a package's test, and for any file but a module below `root`."""
    if not source.endswith(".py") or not source.startswith(root):
        return ""
    folder, _, name = source.rpartition("/")
    return "" if not _TESTS.isdisjoint(folder[len(root) :].split("/")) else _beside(folder, name, cache_tag)


def installed_path(source: str, cache_tag: str) -> str:
    """Return where an installer or Python leaves the byte code of the source at this absolute path."""
    folder, _, name = source.rpartition("/")
    return _beside(folder, name, cache_tag)


def _beside(folder: str, name: str, cache_tag: str) -> str:
    return f"{folder}/__pycache__/{name[:-3]}.{cache_tag}.pyc"


def block_size(installed: str) -> int:
    """Return the maximum number of modules of one child process, the first with byte code at `installed`."""
    return _BLOCK_INSTALLED if os.path.exists(installed) else BLOCK


def _relocatable(source: Entry) -> bool:
    """Whether a node may rewrite the source for another prefix: Python must then see that its pyc is outdated."""
    return isinstance(source.content, Rewritten) and bool(source.content.holds)


def command(interpreter: Interpreter) -> list[str]:
    """Return the command of a process that compiles, to be run in `CLEAN`."""
    return [interpreter.compiler, "-s", "-S", "-B", _WORKER]


class Known(Protocol):
    """Byte code of modules that was made before."""

    def has(self, module: Module, /) -> bool:
        """Whether it has the answer for `module`, as it is now."""

    def read(self, module: Module, /) -> bytes | None:
        """Return the answer for a module that this `has`: its pyc file, or None if it does not compile."""


class Compiler:
    """Processes of one interpreter, started on first use, until `close`.

    Threads may call `compile` concurrently; each has a process of its own.
    """

    def __init__(self, interpreter: Interpreter, known: Known | None = None) -> None:
        """`known`: byte code that is there already."""
        self._interpreter = interpreter
        self._known = known
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()

    def close(self) -> None:
        """End the processes."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def compile(self, wanted: Sequence[Module]) -> Iterator[bytes | None]:
        """Yield the pyc file of each of `wanted`, in order; None for a source that does not compile.

        Raises `EnvironmentChanged` for a source that does not match its entry.
        """
        known = self._known
        if not known:
            yield from self._compiled(wanted)
            return
        for is_known, group in groupby(wanted, known.has):
            run = list(group)
            yield from map(known.read, run) if is_known else self._compiled(run)

    def _compiled(self, wanted: Sequence[Module]) -> Iterator[bytes | None]:
        start = 0
        while start < len(wanted):
            size = block_size(wanted[start].installed)
            yield from self._block(wanted[start : start + size])
            start += size

    def _block(self, block: Sequence[Module]) -> Iterator[bytes | None]:
        at, died_at = 0, -1
        while at < len(block):
            try:
                for made in self._once(block[at:], fresh=at == died_at):
                    yield made
                    at += 1
            except _Died as died:
                # The process may have died by accident or through byte code from the disk: try once more without that.
                # Dying twice at one source is the source's fault, unless it was killed: a source can't do that, and a
                # layer without its byte code would be kept.
                block = [replace(module, installed="") for module in block]
                if at != died_at:
                    died_at = at
                elif died.killed:
                    raise CannotBuild(
                        f"/{block[at].source.path}: its compiler was killed twice, as Linux does when memory is short; "
                        "free memory, or raise its limit, and push again"
                    ) from None
                else:
                    yield None
                    at += 1

    def _once(self, block: Sequence[Module], *, fresh: bool) -> Iterator[bytes | None]:
        """Yield answers from one process. `fresh`: a new one, since idle ones may have died as well."""
        try:
            worker = _Worker(self._interpreter) if fresh else self._idle.get_nowait()
        except queue.Empty:
            worker = _Worker(self._interpreter)
        left = len(block)
        try:
            for made in worker.compile(block):
                left -= 1
                if not left:
                    # Before the last answer is used: a layer asks for no more.
                    self._release(worker)
                yield made
        except _Died:
            raise _Died(killed=worker.was_killed()) from None
        finally:
            if left:
                worker.close()

    def _release(self, worker: _Worker) -> None:
        if sys.platform == "win32":  # there it serves one request
            worker.close()
        else:
            self._idle.put(worker)


class _Died(Exception):
    def __init__(self, *, killed: bool = False) -> None:
        super().__init__()
        self.killed = killed


class _Worker:
    def __init__(self, interpreter: Interpreter) -> None:
        self._name = interpreter.compiler
        try:
            self._process = subprocess.Popen(
                command(interpreter),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=CLEAN,
                cwd=os.path.abspath(os.sep),
                bufsize=1 << 16,
                # Ignore a terminal's interrupt, which is for the waiting process: it would look like a bad source.
                start_new_session=True,
            )
        except OSError as error:
            raise CannotBuild(
                f"cannot run {self._name} to compile the environment's modules: {error.strerror}"
            ) from None
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        self._stderr = cast("IO[bytes]", self._process.stderr)
        if sys.platform == "linux":
            import fcntl

            with contextlib.suppress(OSError):  # more than this user may have
                fcntl.fcntl(self._stdout, fcntl.F_SETPIPE_SZ, _PIPE)
        if self._stdout.read(1) != b"K":
            reason = (self._stderr.read().decode("utf-8", "replace").strip().splitlines() or ["no error output"])[-1]
            self.close()
            raise CannotBuild(f"cannot run {self._name} to compile the environment's modules: {reason}")

    def compile(self, block: Sequence[Module]) -> Iterator[bytes | None]:
        """Yield an answer for each of `block`. Raises `_Died` at the source that ended the process."""
        request = []
        for module in block:
            own = module.source.content
            path = own.source if isinstance(own, File) else None
            length = 0 if path else module.source.size
            request.append(("/" + module.source.path, path, length, module.installed, _relocatable(module.source)))
        encoded = json.dumps(request).encode()
        try:
            self._stdin.write(b"R" + struct.pack(">I", len(encoded)) + encoded)
            self._stdin.flush()
            for module, (_, path, *_) in zip(block, request, strict=True):
                if path is None:
                    # Written when its turn comes: the worker stops reading while its answers are not read.
                    self._stdin.writelines(read_entry(module.source))
                    self._stdin.flush()
                yield self._answer(module)
        except BrokenPipeError:
            raise _Died from None

    def _answer(self, module: Module) -> bytes | None:
        status = self._stdout.read(1)
        if status not in (b"C", b"S"):
            raise _Died
        digest, length = self._take(32), struct.unpack(">I", self._take(4))[0]
        if digest.hex() != module.source.digest:
            if isinstance(module.source.content, File):
                raise changed(module.source.content)
            raise CannotBuild(f"{module.source.path}: compiled from other bytes than those that ship; push again")
        made = self._take(length)
        return made if status == b"C" else None

    def _take(self, size: int) -> bytes:
        data = self._stdout.read(size)
        if len(data) != size:
            raise _Died
        return data

    def was_killed(self) -> bool:
        """Whether SIGKILL ended the process or its child; it has closed its output already."""
        try:
            return self._process.wait(5) in _KILLED
        except subprocess.TimeoutExpired:
            return False

    def close(self) -> None:
        """End the process, whatever it is doing."""
        # Its children end when the pipe closes; wait only for an idle or a dead worker.
        self._process.kill()
        for stream in (self._stdin, self._stdout, self._stderr):
            with contextlib.suppress(OSError):
                stream.close()
        self._process.wait()
