"""Write one layer: its files and byte code as a tar, in one pass."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from lamella.builder.content.blob import BlobWriter
from lamella.builder.content.entry import Entry, changed, has_times, opened, read_entry, read_into
from lamella.builder.environment import File
from lamella.builder.errors import CannotBuild
from lamella.builder.files.read import same
from lamella.layers.tar import headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamella.builder.content.blob import Compression, LayerBlob, Processors
    from lamella.builder.content.bytecode import Compiler, Module


def write_layer(
    entries: Sequence[Entry],
    wanted: Sequence[Module],
    compiler: Compiler | None,
    out: BinaryIO,
    compression: Compression,
    *,
    processors: Processors | None = None,
    settled: bool = False,
) -> LayerBlob:
    """Write the layer of `entries` and of the byte code of `wanted` to `out`.

    Frames of a large layer are compressed on the idle ones of `processors`. `settled`: no change since the scan leaves a
    file its times, so that a file with the scan's times is not hashed again.
    """
    blob = BlobWriter(out, compression, processors)
    compiled = compiler.compile(wanted) if compiler and wanted else iter(())
    items: list[tuple[bytes, Entry | None]] = [(_encoded(entry.path), entry) for entry in entries]
    items += [(_encoded(module.path), None) for module in wanted]
    items.sort(key=lambda item: item[0])
    folders: set[bytes] = set()
    for name, entry in items:
        if entry is None:
            made = next(compiled)
            if made is None:
                continue
            _write_folders(blob, name, folders)
            blob.write(headers.file_header(name, 0o644, len(made)))
            blob.write_file([made], len(made))
            continue
        _write_folders(blob, name, folders)
        if entry.target is not None:
            blob.write(headers.symlink_header(name, entry.target.encode("utf-8", "surrogateescape")))
        else:
            blob.write(headers.file_header(name, entry.mode, entry.size))
            _write_file(blob, entry, settled=settled)
    return blob.finish()


def _write_file(blob: BlobWriter, entry: Entry, *, settled: bool) -> None:
    file = entry.content
    if not isinstance(file, File):
        blob.write_file(read_entry(entry), entry.size)
        return
    with opened(file) as descriptor:
        before = os.fstat(descriptor)
        known = settled and has_times(file, before)
        digest = blob.copy_file(partial(read_into, descriptor, file), entry.size, hashes=not known)
        if digest is None or not (same(before, os.fstat(descriptor)) if known else digest == entry.digest):
            raise changed(file)


def _write_folders(blob: BlobWriter, name: bytes, written: set[bytes]) -> None:
    """Write the missing folders above `name`: engines create missing folders with modes of their own."""
    at = name.rfind(b"/")
    if at < 0 or name[: at + 1] in written:
        return
    at = name.find(b"/") + 1
    while at:
        folder = name[:at]
        if folder not in written:
            written.add(folder)
            blob.write(headers.folder_header(folder))
        at = name.find(b"/", at) + 1


def _encoded(path: str) -> bytes:
    """Encode a path for a tar. Raises `CannotBuild` if it is longer than any system allows."""
    name = path.encode("utf-8", "surrogateescape")
    if len(name) > 4095 or b"\0" in name:
        raise CannotBuild(f"{path[:100]}…: a path of {len(name)} bytes; at most 4095 are possible; shorten it")
    return name
