"""Export what a reference names: an ordinary copy of its environment, for machines without Lamella."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamella.layers.errors import ExportError, MountError
from lamella.layers.exporting import additions
from lamella.layers.exporting.members import chosen, generated, of_folders, place
from lamella.layers.exporting.output import check_free
from lamella.layers.exporting.target import ExportOptions, target_of
from lamella.layers.exporting.write import write
from lamella.layers.mounting import lowerdirs, source_checks
from lamella.layers.progress.display import Silent
from lamella.layers.relocation.move import move
from lamella.layers.relocation.prefixes import CannotRelocate
from lamella.layers.running import activation
from lamella.layers.settings.trust import Trust
from lamella.layers.store.store import Store
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lamella.layers.exporting.members import Member
    from lamella.layers.exporting.target import Format, Target
    from lamella.layers.mounting.link_tree import How
    from lamella.layers.oci.documents import Platform
    from lamella.layers.progress.display import Progress
    from lamella.layers.published.environment import PublishedEnvironment
    from lamella.layers.published.package import PublishedPackage
    from lamella.layers.pulling.pull import Pulled

_SILENT = Silent()
_SYSTEM = "system"
_LINKS: tuple[How, ...] = ("hardlinks",)
_COPIES: tuple[How, ...] = ("reflinks", "copies")


@dataclass(frozen=True, slots=True)
class Exported:
    """Result of an export."""

    reference: str
    """Pinned by digest."""
    path: str
    """Absolute; `-` for standard output."""
    format: Format
    prefix: str
    """Path that its files name: a folder's own; an archive's is the image prefix until it is unpacked and activated."""
    files: int
    bytes: int
    """Of the files, not of the archive."""
    packages: tuple[PublishedPackage, ...]
    pulled: Pulled
    """The pull before it."""

    def __repr__(self) -> str:
        return f"<Exported {self.reference} to {self.path} as {self.format}: {counted(self.files, 'file')}, {size(self.bytes)}>"


def export(
    reference: str,
    path: str,
    *,
    options: ExportOptions = ExportOptions(),
    platform: Platform | None = None,
    store: Store | None = None,
    trust: Trust = Trust(),
    progress: Progress = _SILENT,
) -> Exported:
    """Pull the missing layers of `reference` and write an ordinary copy of the environment to `path`, new or empty.

    `path` may be `-`, for standard output. `platform`: by default this machine's. In a dry run, nothing is
    downloaded or written, and the number of files is 0, since only a layer knows its own. The next export to the
    same folder removes what a killed one left. Raises `ExportError`, and what `pull` raises; then nothing
    is left at `path`.
    """
    from lamella.layers.pulling import pull

    store = store or Store()
    target = target_of(path, options)
    check_free(target)
    leased = pull.leased(
        reference, store=store, platform=platform, trust=trust, dry_run=options.dry_run, progress=progress
    )
    with leased as pulled:
        environment = pulled.environment
        at = target.prefix or environment.prefix
        packages = tuple(each for each in environment.packages if options.system_libraries or each.origin != _SYSTEM)
        if options.dry_run:
            total = sum(each.unpacked for each in packages)
            return Exported(pulled.reference, target.path, target.format, at, 0, total, packages, pulled)
        shipped = replace(environment, layers=tuple(each.layer for each in packages))
        # A folder is moved after it was written, anything else written with its files rewritten.
        named = environment.prefix if target.is_folder else at
        folders = _folders(store, shipped, named)
        # Images and links are not meant to be written.
        writable = target.format != "squashfs" and not options.link
        checks = source_checks.checked(environment, folders) if writable else {}
        added = [generated(path, *made) for path, made in checks.items()]
        added += _additions(folders, named, target, packages)
        members = _assembled(folders, options, added)
        members.sort(key=lambda member: place(member.path))
        total = sum(member.size for member in members)
        ways = _LINKS if options.link else _COPIES
        write(target, members, total, progress, ways=ways, finish=lambda folder: _move(folder, at))
    return Exported(pulled.reference, target.path, target.format, at, len(members), total, packages, pulled)


def _folders(store: Store, environment: PublishedEnvironment, prefix: str) -> list[str]:
    try:
        return lowerdirs.for_prefix(store, environment, prefix)
    except MountError as error:
        raise ExportError(str(error)) from error


def _move(folder: str, prefix: str) -> None:
    try:
        move(folder, prefix)
    except CannotRelocate as error:
        raise ExportError(f"cannot relocate the environment to {prefix}: {error}") from error


def _additions(
    folders: Sequence[str], prefix: str, target: Target, packages: Iterable[PublishedPackage]
) -> list[Member]:
    variables: dict[str, str] = {}
    for folder in folders:
        variables |= activation.conda_variables(folder)
    conda = any(os.path.isdir(f"{folder}/conda-meta") for folder in folders)
    named = [(each.name, each.version) for each in packages]
    return additions.members(prefix, variables, conda=conda, of_parcel=target.parcel, packages=named)


def _assembled(folders: Sequence[str], options: ExportOptions, added: Sequence[Member]) -> list[Member]:
    """Return the members of an environment in `folders`, lowest first, with `added` in the place of any of their paths."""
    own = {member.path for member in added}
    found = of_folders(folders, added, additions.LEFT_OUT)
    kept = own | chosen((member.path for member in found), options.filters, byte_code=options.byte_code)
    return [member for member in found if member.path in kept]
