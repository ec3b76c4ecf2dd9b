"""What to write, and where: an export's path, form and settings, checked before any work."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lamella.layers.errors import ExportError
from lamella.layers.exporting.parcel import ROOT as PARCELS
from lamella.layers.exporting.parcel import parcel_of
from lamella.layers.relocation.prefixes import CannotRelocate, check_prefix

if TYPE_CHECKING:
    from lamella.layers.exporting.compress import Compression
    from lamella.layers.exporting.members import Filter
    from lamella.layers.exporting.parcel import Parcel

Format = Literal["dir", "tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "zip", "squashfs", "parcel"]
FORMATS: tuple[Format, ...] = ("dir", "tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "zip", "squashfs", "parcel")
STDOUT = "-"

_ENDINGS: dict[str, Format] = {
    ".tar": "tar",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
    ".tar.bz2": "tar.bz2",
    ".tbz2": "tar.bz2",
    ".tar.xz": "tar.xz",
    ".txz": "tar.xz",
    ".tar.zst": "tar.zst",
    ".tzst": "tar.zst",
    ".zip": "zip",
    ".squashfs": "squashfs",
    ".sqfs": "squashfs",
    ".parcel": "parcel",
}
_OTHER_ARCHIVE = re.compile(r"\.(?:tar\.[a-z0-9]+|t[bx]z|tlz|gz|bz2|xz|zst|lz4|7z|rar|cpio|iso|img|sfs)$")
_LEVELS: dict[Format, tuple[int, int, int]] = {
    "tar.gz": (0, 9, 4),
    "tar.bz2": (1, 9, 9),
    "tar.xz": (0, 9, 4),
    "tar.zst": (1, 19, 8),
    "zip": (0, 9, 4),
    "squashfs": (1, 22, 9),
    "parcel": (0, 9, 4),
}
"""Lowest, highest and default level. gzip's 4 is conda-pack's: 6 takes a third longer for a fortieth less. zstd's 8 makes
about the size of conda-pack's 9 in 85 % of its time; 7 takes 6 % less time for 0.3 % more bytes."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of an export."""

    format: Format | None = None
    """Form to write; None for that of the path's suffix."""
    link: bool = False
    """Make a folder's files hard links into the store; do not write to them. Only for a reference."""
    prefix: str = ""
    """Path that the files name. Empty for a folder's own path, and for the image prefix in an archive, which
    activation or `bin/conda-unpack` changes where it is unpacked. A squashfs image cannot be changed later."""
    root: str = ""
    """Folder in the archive that holds the environment; empty for none."""
    level: int | None = None
    """Compression level; None for the form's default."""
    threads: int = 0
    """Threads that compress; 0 for one for each processor. The bytes are the same for any number."""
    filters: tuple[Filter, ...] = ()
    """Patterns of paths to exclude, and to include again, applied in order."""
    byte_code: bool = True
    """Write byte code; without it Python compiles modules at their first import."""
    system_libraries: bool = True
    """Write the shared libraries that come from the system of the scan."""
    force: bool = False
    """Replace a file at the path, or an export that is there."""
    parcel_root: str = PARCELS
    """Folder of a cluster's parcels, which the files of a parcel name."""
    dry_run: bool = False
    """Write nothing, and report what would be written."""


@dataclass(frozen=True, slots=True)
class Target:
    """A place and form to write an export."""

    path: str
    """Absolute; `-` for standard output."""
    format: Format
    prefix: str
    """Path that the files are to name; empty for the image prefix."""
    root: str
    """Folder in the archive, with a slash at its end; or empty."""
    level: int
    threads: int
    """As requested; 0 for one for each processor."""
    force: bool = False
    link: bool = False
    parcel: Parcel | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.format == "dir"

    @property
    def compression(self) -> Compression:
        """Compression of a tar."""
        named: dict[Format, Compression] = {
            "tar.gz": "gz",
            "parcel": "gz",
            "tar.bz2": "bz2",
            "tar.xz": "xz",
            "tar.zst": "zst",
        }
        return named.get(self.format, "")


def format_of(path: str) -> Format:
    """Return the form that `path`'s suffix names: `dir` without one, `tar` for standard output.

    Raises `ExportError` for the suffix of another archive.
    """
    if path == STDOUT:
        return "tar"
    found = form_of_name(os.path.basename(path))
    other = _OTHER_ARCHIVE.search(path.lower())
    if not found and other:
        raise ExportError(
            f"{path}: {other[0]} archives are not supported; use .tar.gz, .tar.zst, .zip, .squashfs or .parcel, "
            "or --format dir for a folder of that name",
            code="invalid",
        )
    return found or "dir"


def form_of_name(name: str) -> Format | None:
    """Return the form that the suffix of a file's name stands for, or None."""
    lower = name.lower()
    return next((form for ending, form in _ENDINGS.items() if lower.endswith(ending)), None)


def target_of(path: str, options: ExportOptions) -> Target:
    """Check `path` and `options`. Raises `ExportError`, before anything is read or downloaded."""
    wanted = options.format or format_of(path)
    if path == STDOUT and wanted in ("dir", "squashfs", "parcel"):
        raise ExportError(
            f"--format {wanted}: cannot go to standard output; name a path, or use --format tar", code="invalid"
        )
    absolute = path if path == STDOUT else os.path.abspath(path)
    if options.link and wanted != "dir":
        raise ExportError(f"--link {path}: only a folder can hold links, not {wanted}; remove --link", code="invalid")
    root = _root(options.root)
    if root and wanted == "dir":
        raise ExportError(f"--arcroot {options.root}: only for archives; name the folder as PATH", code="invalid")
    prefix = options.prefix.rstrip("/") or options.prefix
    parcel = None
    if wanted == "parcel":
        if root or prefix:
            raise ExportError(
                f"{path}: a parcel's name sets its folder and prefix; leave out --arcroot and --prefix, "
                "or set --parcel-root",
                code="invalid",
            )
        parcel = parcel_of(absolute)
        root = f"{parcel.folder}/"
        prefix = f"{options.parcel_root.rstrip('/')}/{parcel.folder}"
    if wanted == "dir" and not prefix:
        prefix = os.path.realpath(absolute)
    try:
        if prefix:
            check_prefix(prefix)
    except CannotRelocate as error:
        raise ExportError(str(error)) from error
    if wanted == "squashfs" and not shutil.which("mksquashfs"):
        raise ExportError("mksquashfs: not found on PATH; install squashfs-tools, or export another format")
    if options.threads < 0:
        raise ExportError(
            f"--threads {options.threads}: less than 0; use 0 for one thread per processor", code="invalid"
        )
    return Target(
        absolute,
        wanted,
        prefix,
        root,
        _level(wanted, options.level),
        options.threads,
        options.force,
        options.link,
        parcel,
    )


def _level(wanted: Format, level: int | None) -> int:
    if wanted not in _LEVELS:
        if level is not None:
            raise ExportError(f"--compress-level {level}: {wanted} is not compressed; leave it out", code="invalid")
        return 0
    lowest, highest, usual = _LEVELS[wanted]
    if level is None:
        return usual
    if not lowest <= level <= highest:
        raise ExportError(
            f"--compress-level {level}: not a level of {wanted}; use {lowest} to {highest}", code="invalid"
        )
    return level


def _root(root: str) -> str:
    parts = [part for part in root.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in root:
        raise ExportError(f"--arcroot {root}: leads out of the archive; use a relative path", code="invalid")
    return "".join(f"{part}/" for part in parts)
