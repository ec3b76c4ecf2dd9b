"""`lamella export`: write an ordinary copy of an environment, for machines without Lamella."""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict, dataclass
from shlex import quote
from typing import TYPE_CHECKING, Any

from lamella.cli.environment import check_folder, names_reference
from lamella.cli.errors import UsageError
from lamella.cli.findings import how_many
from lamella.cli.modes import Mode, flags_of
from lamella.cli.output import remark, result, result_json, table
from lamella.cli.settings import (
    CACHE,
    IGNORE,
    IMAGE_PREFIX,
    PLATFORM,
    STORE,
    TRUST,
    add_settings,
    platform_of,
    trust_of,
)
from lamella.cli.tables import Column
from lamella.layers.text import counted, seconds, size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from lamella.builder import Packed
    from lamella.layers import Exported, ExportOptions

SETTINGS = (STORE, PLATFORM, IMAGE_PREFIX, IGNORE, CACHE, *TRUST)
FORMATS = ("dir", "tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "zip", "squashfs", "parcel")
_ALIASES = {"no-archive": "dir", "tgz": "tar.gz", "tbz2": "tar.bz2", "txz": "tar.xz", "tzst": "tar.zst"}
"""Formats by conda-pack's and suffixes' names."""
_EVERY = flags_of(
    "--format --link --prefix --arcroot --compress-level --threads --exclude --include --no-byte-code",
    "--no-system-libraries --parcel-root --force --dry-run",
)


def _packs(arguments: argparse.Namespace) -> bool:
    """Whether the source is an environment on this disk."""
    return not arguments.to_docker and (not arguments.path or os.path.isdir(arguments.source))


MODES = (
    Mode("--to-docker", flags_of("--platform", TRUST)),
    Mode("a folder as SOURCE", _EVERY | flags_of("--local", (IMAGE_PREFIX, IGNORE, CACHE)), _packs),
    Mode("", _EVERY | flags_of((STORE, PLATFORM), TRUST)),
)
_ARCHIVE = re.compile(r"\.(?:tar(?:\.\w+)?|tgz|tbz2|txz|tzst|zip|squashfs|sqfs|parcel)$", re.IGNORECASE)
LARGEST = 20
"""Packages shown by a dry run: the rest is most of the lines and little of the size."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="reference, or folder of an environment on this disk (default: the active environment, or that of "
        "the project here or above)",
    )
    parser.add_argument(
        "path",
        nargs="?",
        metavar="PATH",
        help="folder or archive to write; must not exist, or be an empty folder; - for standard output",
    )
    parser.add_argument(
        "--to-docker", action="store_true", help="load the runnable image into the local Docker engine; without PATH"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        type=_format,
        help="format to write (default: by the suffix of PATH, else dir; tar for -)",
    )
    parser.add_argument(
        "--link",
        action="store_true",
        help="hard-link the files to the store instead of copying them; do not write to them",
    )
    parser.add_argument(
        "--prefix",
        metavar="PATH",
        default="",
        help="path that the files refer to (default: PATH for a folder; set by activation for an archive)",
    )
    parser.add_argument(
        "--arcroot", metavar="FOLDER", default="", help="folder in the archive that holds the environment"
    )
    parser.add_argument(
        "--compress-level",
        metavar="N",
        type=int,
        help="compression level (default: 4 for gzip, xz and zip, 8 for zstd, 9 for bzip2 and squashfs)",
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=int,
        default=0,
        help="threads that compress; 0 for one per processor, as many as 72 MB of memory are enough for (default: 0)",
    )
    for kind, meaning in (("exclude", "leave out files whose path matches"), ("include", "bring excluded files back")):
        parser.add_argument(
            f"--{kind}",
            metavar="PATTERN",
            action="append",
            type=_filter(kind),
            dest="filters",
            default=[],
            help=f"{meaning}, such as '*.pyx' or 'lib/*/tests/*'; repeatable, applied in order",
        )
    parser.add_argument("--no-byte-code", action="store_true", help="leave out compiled modules (*.pyc)")
    parser.add_argument("--no-system-libraries", action="store_true", help="leave out shared libraries of the system")
    parser.add_argument(
        "--parcel-root",
        metavar="FOLDER",
        default="/opt/cloudera/parcels",
        help="folder of the cluster's parcels (default: /opt/cloudera/parcels)",
    )
    parser.add_argument(
        "--local",
        metavar="FOLDER",
        default="",
        help="pack the code in this folder, too (default: none; not for a reference)",
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace a file, or another export, at PATH")
    parser.add_argument("--dry-run", action="store_true", help="show what would be packed; write nothing")
    add_settings(parser, SETTINGS)


def _format(name: str) -> str:
    return _ALIASES.get(name, name)


def _filter(kind: str) -> Callable[[str], tuple[str, str]]:
    return lambda pattern: (kind, pattern)


def run(arguments: argparse.Namespace) -> int:
    """Export, and print the path."""
    from lamella.cli.memory import return_large_blocks

    return_large_blocks()
    source, path = _source_and_path(arguments)
    if arguments.to_docker:
        return _to_docker(arguments, source)
    if path == "-" and arguments.json:
        raise UsageError("export -: writes the archive to standard output, where --json prints; drop one")
    if not source or os.path.isdir(source):
        return _pack(arguments, source, path)
    check_folder("export", source)
    return _export(arguments, source, path)


def _source_and_path(arguments: argparse.Namespace) -> tuple[str, str]:
    """Return the source, empty for the active environment, and the path, empty with --to-docker."""
    source, path = arguments.source or "", arguments.path or ""
    if arguments.to_docker:
        if path:
            raise UsageError("export: PATH and --to-docker exclude each other; drop one")
        if not source:
            raise UsageError("export --to-docker: missing REFERENCE")
        return source, ""
    if path:
        _check_path(source, path)
        return source, path
    if not source:
        raise UsageError("export: missing PATH or --to-docker; for example lamella export environment.tar.gz")
    if source == "-" or (_ARCHIVE.search(source) and not os.path.isdir(source)):
        return "", source
    name = "env" if arguments.format == "dir" else f"env.{arguments.format or 'tar.gz'}"
    words = ["export", *(["--force"] if arguments.force else []), quote(source), name]
    raise UsageError(f"export {source}: missing PATH or --to-docker; for example lamella {' '.join(words)}")


def _check_path(source: str, path: str) -> None:
    """Raise `UsageError` for a reference in place of the folder or archive; ./ before it makes it a path."""
    if not names_reference(path):
        return
    if os.path.isdir(source) or not source:
        instead = " ".join(["push", *map(quote, filter(None, (path, source)))])
    else:
        instead = f"copy {quote(source)} {quote(path)}"
    raise UsageError(f"export {path}: a reference, where export writes a folder or archive; use lamella {instead}")


def _options(arguments: argparse.Namespace) -> ExportOptions:
    from lamella.layers import ExportOptions

    return ExportOptions(
        format=arguments.format,
        link=arguments.link,
        prefix=arguments.prefix,
        root=arguments.arcroot,
        level=arguments.compress_level,
        threads=arguments.threads,
        filters=tuple(arguments.filters),
        byte_code=not arguments.no_byte_code,
        system_libraries=not arguments.no_system_libraries,
        force=arguments.force,
        parcel_root=arguments.parcel_root,
        dry_run=arguments.dry_run,
    )


def _pack(arguments: argparse.Namespace, source: str, path: str) -> int:
    from lamella.builder import LayerCache, ScanOptions, active_prefix, pack
    from lamella.cli.progress import shown

    began = time.monotonic()
    with shown(quiet=arguments.quiet) as progress:
        packed = pack(
            source or active_prefix(),
            path,
            _options(arguments),
            scan_options=ScanOptions(
                local=arguments.local or None,
                ignore=tuple(arguments.ignore),
                image_prefix=arguments.image_prefix,
                cache=arguments.cache or None,
            ),
            cache=LayerCache(arguments.cache) if arguments.cache else None,
            progress=progress,
        )
    took = time.monotonic() - began
    packages = [
        _Row(each.package.name, each.package.version, each.package.origin, each.bytes) for each in packed.packages
    ]
    if arguments.json:
        result_json({"environment": packed.environment.prefix, **_document(arguments, packed, packages, took)})
        return 0
    remark(f"environment {packed.environment.prefix}", quiet=arguments.quiet)
    if found := how_many(packed.environment.findings, ("error", "warning")):
        remark(f"{found}: lamella scan {quote(packed.environment.prefix)} shows them", quiet=arguments.quiet)
    _print(arguments, packed, packages, took)
    return 0


def _export(arguments: argparse.Namespace, reference: str, path: str) -> int:
    from lamella.cli.progress import shown
    from lamella.cli.verbs import pull
    from lamella.layers import Store, export

    store = Store(arguments.store)
    began = time.monotonic()
    with shown(quiet=arguments.quiet) as progress:
        exported = export(
            reference,
            path,
            options=_options(arguments),
            platform=platform_of(arguments),
            store=store,
            trust=trust_of(arguments),
            progress=progress,
        )
    took = time.monotonic() - began
    packages = [_Row(each.name, each.version, each.origin, each.unpacked) for each in exported.packages]
    if arguments.json:
        value = _document(arguments, exported, packages, took)
        if arguments.dry_run:
            for name in ("dry_run", "files", "seconds"):
                del value[name]
            value = pull.planned(pull.document(exported.pulled, store.path, took, dry_run=True), value)
        else:
            value = {"reference": exported.reference, **value}
        result_json(value)
        return 0
    _print(arguments, exported, packages, took)
    if arguments.dry_run:
        plan = exported.pulled.plan
        remark(f"{counted(len(plan.fetch), 'layer')} to download, {size(plan.bytes)}", quiet=arguments.quiet)
    return 0


@dataclass(frozen=True, slots=True)
class _Row:
    """A package of an export, as shown."""

    name: str
    version: str
    origin: str
    size: int


def _document(
    arguments: argparse.Namespace, made: Packed | Exported, packages: Sequence[_Row], took: float
) -> dict[str, Any]:
    """Return an export, or its plan, as JSON."""
    return {
        "path": made.path,
        "format": made.format,
        "prefix": made.prefix,
        "dry_run": arguments.dry_run,
        "files": made.files,
        "bytes": made.bytes,
        "packages": [asdict(each) for each in packages],
        "seconds": round(took, 3),
    }


def _print(arguments: argparse.Namespace, made: Packed | Exported, packages: Sequence[_Row], took: float) -> None:
    form = "a folder" if made.format == "dir" else made.format
    if arguments.dry_run:
        ordered = sorted(packages, key=lambda each: (-each.size, each.name))
        table(
            (
                Column("Package", style="bold"),
                Column("Version"),
                Column("Origin", style="cyan"),
                Column("Size", "right"),
            ),
            [(each.name, each.version, each.origin, size(each.size)) for each in ordered[:LARGEST]],
        )
        if rest := ordered[LARGEST:]:
            result(f"… and {len(rest)} more ({size(sum(each.size for each in rest))}): --json lists them")
        remark(
            f"{counted(len(packages), 'package')}, {size(made.bytes)}, would become {form} at {made.path}",
            quiet=arguments.quiet,
        )
        return
    if made.path != "-":
        result(made.path)
    remark(f"{counted(made.files, 'file')}, {size(made.bytes)} as {form} in {seconds(took)}", quiet=arguments.quiet)


def _to_docker(arguments: argparse.Namespace, reference: str) -> int:
    from lamella.builder import load_image
    from lamella.cli.progress import shown

    platform = platform_of(arguments)
    with shown(quiet=arguments.quiet) as progress:
        name = load_image(reference, platform=platform, trust=trust_of(arguments), progress=progress)
    if arguments.json:
        result_json({"reference": reference, "dry_run": False, "image": name})
    else:
        result(name)
    return 0
