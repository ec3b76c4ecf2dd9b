"""Pack an environment on this disk: scan it, and write an archive or a folder for machines without Lamella."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamella.builder.content.bytecode import Compiler
from lamella.builder.content.precompiler import Precompiler
from lamella.builder.environment import Environment
from lamella.builder.layer.cache import LayerCache
from lamella.builder.layer.code_fingerprint import Remembered
from lamella.builder.packing.contents import compiled, contents
from lamella.builder.scanning.options import ScanOptions
from lamella.layers.errors import ExportError
from lamella.layers.exporting import additions
from lamella.layers.exporting.members import generated
from lamella.layers.exporting.output import check_free
from lamella.layers.exporting.target import ExportOptions, target_of
from lamella.layers.exporting.write import write
from lamella.layers.mounting import source_checks
from lamella.layers.progress.display import shown
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    from lamella.builder.packing.contents import PackedPackage
    from lamella.layers.exporting.target import Format
    from lamella.layers.progress.display import Progress


@dataclass(frozen=True, slots=True, repr=False)
class Packed:
    """Result of a pack. With `dry_run` nothing was written."""

    path: str
    """Absolute; `-` for standard output."""
    format: Format
    prefix: str
    """Path that its files name: a folder's own; an archive's is the image prefix until it is unpacked and activated."""
    environment: Environment
    packages: tuple[PackedPackage, ...]
    files: int
    """Number of files, with those of byte code."""
    bytes: int
    """Bytes of the files on this disk that were packed: not of the archive, and without byte code."""

    def __repr__(self) -> str:
        """One line."""
        files = f"{counted(len(self.packages), 'package')}, {counted(self.files, 'file')}, {size(self.bytes)}"
        return f"<Packed {self.environment.prefix} to {self.path} as {self.format}: {files}>"


def pack(
    environment: Environment | str | None,
    path: str,
    options: ExportOptions = ExportOptions(),
    *,
    scan_options: ScanOptions = ScanOptions(),
    cache: LayerCache | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Write an ordinary copy of an environment on this disk to `path`: no push, no store, no copies on the way.

    `environment` is a scanned environment or a prefix to scan; None is the running interpreter's,
    `sys.prefix`. `path` is a new archive or folder, or `-` for standard output. The same environment gives
    the same bytes. `cache` remembers rewritten files. Raises `ExportError` and `BuilderError`; then nothing
    is left at `path`.
    """
    if options.link:
        raise ExportError(
            f"--link {path}: only for a reference, whose files are in the store; remove --link", code="invalid"
        )
    target = target_of(path, options)
    check_free(target)
    at = target.prefix or scan_options.image_prefix
    with shown(progress) as bars, contextlib.closing(Precompiler(scan_options.cache)) as precompiler:
        if not isinstance(environment, Environment):
            from lamella.builder.scanning.scan import scan

            ships = scan_options.system_libraries and options.system_libraries
            scan_options = replace(scan_options, image_prefix=at, system_libraries=ships)
            meanwhile = precompiler if options.byte_code and not options.dry_run else None
            environment = scan(environment, scan_options, progress=bars, precompiler=meanwhile)
        found = contents(environment, at, options, Remembered(cache or LayerCache()))
        named = [(each.package.name, _version(each)) for each in found.packages]
        added = additions.members(at, found.variables, conda=found.is_conda, of_parcel=target.parcel, packages=named)
        if target.format != "squashfs":
            # Edits show, where files can be written.
            added.append(generated(f"{environment.interpreter.purelib}/{source_checks.NAME}", source_checks.CONTENT))
        members = {**found.members, **{member.path: member for member in added}}
        result = Packed(
            target.path,
            target.format,
            at,
            environment,
            found.packages,
            len(members) + len(found.modules),
            sum(member.size for member in members.values()),
        )
        if not options.dry_run:
            threads = target.threads or os.cpu_count() or 1
            compiler = Compiler(environment.interpreter, precompiler.stop(environment.interpreter, at))
            with contextlib.closing(compiled(compiler, members, found.modules, threads)) as stream:
                # Byte code is about as large as its source.
                total = result.bytes + sum(module.source.size for module in found.modules.values())
                write(target, stream, total, bars)
    return result


def _version(packed: PackedPackage) -> str:
    return "-".join(filter(None, (packed.package.version, packed.package.build)))
