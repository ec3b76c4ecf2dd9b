"""The members of an environment's export, compiled and rewritten while they are written."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from lamella.builder.content.bytecode import BLOCK, Module
from lamella.builder.content.entry import CHUNK, changed, has_times, read_entry
from lamella.builder.environment import File
from lamella.builder.layer.layer_set import shipped
from lamella.layers.exporting.members import Member, chosen, generated, place
from lamella.layers.published.conda_meta import ORIGINS, completed
from lamella.layers.running import activation

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from lamella.builder.content.bytecode import Compiler
    from lamella.builder.content.entry import Entry
    from lamella.builder.environment import Environment, Package
    from lamella.builder.layer.code_fingerprint import Remembered
    from lamella.layers.exporting.target import ExportOptions


_SMALL = 64 << 10
"""Bytes of a file whose hash takes less time than a look at its times."""
_MOST_THREADS = 8
"""Maximum number of blocks that are compiled at once, whose byte code is in memory until its turn."""
_BLOCK_BYTES = 1 << 20
"""Bytes of source after which a block ends. Its byte code is about as large."""


@dataclass(frozen=True, slots=True)
class PackedPackage:
    """A package of an export."""

    package: Package
    files: int
    bytes: int
    """Without byte code, whose size is unknown before it is compiled."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything that an export of an environment holds, beside the export's own files."""

    packages: tuple[PackedPackage, ...]
    members: Mapping[str, Entry | Member]
    """By path. An entry becomes a member in its turn: together they would take 20 MB in an environment of 50,000 files."""
    modules: Mapping[str, Module]
    """Modules to compile, by the path of their byte code."""
    is_conda: bool
    variables: Mapping[str, str]
    """Variables that activation sets, for conda's packages and its user."""


def contents(environment: Environment, prefix: str, options: ExportOptions, remembered: Remembered) -> Contents:
    """Compute the export of `environment` whose files name `prefix`. Reads only files that it rewrites.

    Raises `CannotBuild` for a file that cannot name `prefix`.
    """
    found = [(package, shipped(environment, package, prefix, remembered)) for package in environment.packages]
    below = len(prefix)
    entries = {entry.path[below:]: entry for _, each in found for entry in each.entries}
    modules = {module.path[below:]: module for _, each in found for module in each.modules}
    kept = chosen([*entries, *modules], options.filters, byte_code=options.byte_code)
    members: dict[str, Entry | Member] = {path: entry for path, entry in entries.items() if path in kept}
    if ORIGINS in entries:
        members.pop(ORIGINS, None)
        records = {path: _content(entry) for path, entry in entries.items() if path in members and _is_record(path)}
        for path, record in completed(records, _content(entries[ORIGINS])).items():
            members[path] = generated(path, record)
    packages = []
    for package, each in found:
        own = [members[path] for entry in each.entries if (path := entry.path[below:]) in members]
        if own:
            packages.append(PackedPackage(package, len(own), sum(member.size for member in own)))
    return Contents(
        tuple(packages),
        members,
        {path: module for path, module in modules.items() if path in kept},
        any(path.startswith("conda-meta/") for path in members),
        activation.variables_of(
            {path: _content(entry) for path, entry in entries.items() if activation.sets_variables(path)}
        ),
    )


def compiled(
    compiler: Compiler, members: Mapping[str, Entry | Member], modules: Mapping[str, Module], threads: int
) -> Generator[Member, None, None]:
    """Yield `members` and the byte code of `modules`, in the order of an archive.

    Modules are compiled by `compiler`, which is closed at the end, up to `threads` blocks at once, ahead of their turn.
    """
    order = sorted([*members, *modules], key=place)
    wanted = [modules[path] for path in order if path in modules]
    with contextlib.closing(_Ahead(compiler, wanted, min(threads, _MOST_THREADS))) as ahead:
        made = iter(ahead)
        for path in order:
            if path in members:
                member = members[path]
                yield member if isinstance(member, Member) else _member(path, member)
            elif (content := next(made)) is not None:
                yield generated(path, content)


class _Ahead:
    """Byte code of modules, in their order, of which the first blocks are compiled before they are asked for."""

    def __init__(self, compiler: Compiler, wanted: Sequence[Module], threads: int) -> None:
        self._blocks = byte_code_blocks(wanted)
        self._compiler = compiler
        self._pool = ThreadPoolExecutor(threads, "lamella-compile")
        self._pending: deque[Future[list[bytes | None]]] = deque()
        for _ in range(threads + 1):
            self._submit()

    def _submit(self) -> None:
        if block := next(self._blocks, None):
            self._pending.append(self._pool.submit(lambda: list(self._compiler.compile(block))))

    def __iter__(self) -> Iterator[bytes | None]:
        while self._pending:
            made = self._pending.popleft().result()
            self._submit()
            yield from made

    def close(self) -> None:
        """End the threads and processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._compiler.close()


def byte_code_blocks(wanted: Sequence[Module]) -> Iterator[list[Module]]:
    """Cut `wanted` into blocks that limit what compiling leaves behind, and the byte code that waits for its turn."""
    block: list[Module] = []
    size = 0
    for module in wanted:
        block.append(module)
        size += module.source.size
        if len(block) == BLOCK or size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _member(path: str, entry: Entry) -> Member:
    if entry.target is not None:
        return Member(path, 0o777, 0, tuple, entry.target)
    large = isinstance(entry.content, File) and entry.size > _SMALL
    return Member(path, entry.mode, entry.size, partial(_unchanged if large else read_entry, entry))


def _unchanged(entry: Entry) -> Iterator[bytes]:
    """Yield a file's bytes. Its times show that it did not change, and save hashing it again; else its hash decides."""
    file = entry.content
    if not isinstance(file, File):
        raise AssertionError("only files of this disk are read by their times")
    with open(file.source, "rb", buffering=0) as stream:
        if not has_times(file, os.fstat(stream.fileno())):
            yield from read_entry(entry)
            return
        left = file.size
        while left and (piece := stream.read(min(left, CHUNK))):
            left -= len(piece)
            yield piece
        if left or not has_times(file, os.fstat(stream.fileno())):
            raise changed(file)


def _content(entry: Entry) -> bytes:
    return b"".join(read_entry(entry))


def _is_record(path: str) -> bool:
    return os.path.dirname(path) == "conda-meta" and path.endswith(".json")
