"""Which files made a package's layer change from one environment to another, and why."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from lamella.builder.environment import Environment
from lamella.builder.errors import BuilderError
from lamella.builder.installed.distributions import normalised
from lamella.builder.layer.shipped_files import shipped_files
from lamella.layers.oci.reference import Reference
from lamella.layers.published.layer_files import read_layers
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage
from lamella.layers.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.builder.environment import Package
    from lamella.builder.pushing.difference import ComparedEnvironment, ComparedPackage, Difference
    from lamella.layers.progress.display import Progress
    from lamella.layers.published.layer_files import LayerFiles
    from lamella.layers.store.store import Store

Reason = Literal["content", "prefix", "byte code", "Python version", "record", "link", "mode", "format"]

_STDLIB = re.compile(r"^(lib|include)/python3\.\d+t?/")
_TAG = re.compile(r"\.cpython-3\d+t?(?=(?:\.opt-\d)?\.pyc$)")
_RECORD = re.compile(r".*\.dist-info/RECORD|conda-meta/[^/]+\.json|\.lamella/relocate/[^/]+\.json")


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file that differs."""

    path: str
    """Relative to the image prefix; of a file in both, where it is afterwards."""
    change: Literal["added", "removed", "changed"]
    reason: Reason
    before: int | None
    """Bytes; None if it was not there, or for byte code that is not compiled yet."""
    after: int | None


@dataclass(frozen=True, slots=True)
class PackageChanges:
    """The files that made one package's layer change."""

    name: str
    origin: str
    before: str
    """Its version; empty if it was not there."""
    after: str
    files: tuple[FileChange, ...]
    """By path; empty if all are the same."""
    otherwise: Literal["prefix", "format"] = "format"
    """Why the layer differs if no file does: they are at another image prefix, or in another format of layers."""

    @property
    def reasons(self) -> dict[str, int]:
        """Number of files by reason, the most frequent first."""
        return dict(Counter(file.reason for file in self.files).most_common()) or {self.otherwise: 0}

    def __repr__(self) -> str:
        return f"<PackageChanges {self.name}: {counted(len(self.files), 'file')}>"


class ListedFile(NamedTuple):
    """A file of one side. `neutral`: its digest without the prefix; `digest` is empty for byte code to come."""

    path: str
    size: int
    executable: bool
    link: str | None
    digest: str
    neutral: str = ""


class Listing(NamedTuple):
    """The files of one package on one side."""

    files: tuple[ListedFile, ...] = ()
    magic: str = ""
    """Magic number of its byte code; empty without any."""
    prefix: str = ""
    """The image prefix."""


def file_changes(
    difference: Difference,
    package: str = "",
    *,
    trust: Trust = Trust(),
    store: Store | None = None,
    progress: Progress | None = None,
) -> tuple[PackageChanges, ...]:
    """Return the changed files of each changed package of `difference`, or of one `package`, added and removed ones too.

    Reads the layers of published packages that `store` (default: the user's) lacks. `difference` is a result of `diff`.
    Raises `BuilderError` if `package` does not differ, and what `layer_files` raises.
    """
    pairs: list[tuple[ComparedPackage | None, ComparedPackage | None]] = [*difference.changed]
    if package:
        pairs += [(None, item) for item in difference.added] + [(item, None) for item in difference.removed]
        pairs = [pair for pair in pairs if normalised(package) in {normalised(item.name) for item in pair if item}]
        if not pairs:
            raise BuilderError(f"--files {package}: the same on both sides, or in neither")
    sides = []
    for number, side in enumerate(difference.sides):
        wanted = [(item.name, item.origin) for pair in pairs if (item := pair[number])]
        sides.append(_listings(side, wanted, trust, store, progress))
    found = []
    for old, new in pairs:
        item = new or old
        if item:
            key = (item.name, item.origin)
            one, two = (side.get(key, Listing()) for side in sides)
            versions = (old.version if old else "", new.version if new else "")
            otherwise: Literal["prefix", "format"] = "format" if one.prefix == two.prefix else "prefix"
            found.append(PackageChanges(item.name, item.origin, *versions, changes(one, two), otherwise))
    return tuple(found)


def changes(before: Listing, after: Listing) -> tuple[FileChange, ...]:
    """Return the files that differ. A path that only names another Python version is the same path."""
    old, new = ({_key(file.path): file for file in side.files} for side in (before, after))
    found = []
    for key in old.keys() | new.keys():
        one, two = old.get(key), new.get(key)
        if one and two:
            if reason := _reason(one, two, before, after):
                found.append(FileChange(two.path, "changed", reason, _size(one), _size(two)))
        elif two:
            found.append(FileChange(two.path, "added", _kind(two.path), None, _size(two)))
        elif one:
            found.append(FileChange(one.path, "removed", _kind(one.path), _size(one), None))
    return tuple(sorted(found, key=lambda change: change.path))


def _listings(
    side: ComparedEnvironment,
    wanted: Iterable[tuple[str, str]],
    trust: Trust,
    store: Store | None,
    progress: Progress | None,
) -> dict[tuple[str, str], Listing]:
    """The files of the packages `wanted`, by name and origin."""
    keys = set(wanted)
    content = side.content
    if isinstance(content, Environment):
        packages = [each for each in content.packages if (each.name, each.origin) in keys]
        return {(each.name, each.origin): _to_come(content, each, side.image_prefix) for each in packages}
    chosen = [each for each in content.packages if (each.name, each.origin) in keys]
    with closing(open_storage(Reference.parse(side.name), trust)) as storage:
        read = read_layers(storage, chosen, content.prefix, digests=True, store=store, progress=progress)
    return {(each.package.name, each.package.origin): _listed(each, content.prefix) for each in read}


def _listed(read: LayerFiles, prefix: str) -> Listing:
    files = (
        ListedFile(each.path, each.size, each.executable, each.link, each.digest, each.neutral) for each in read.files
    )
    return Listing(tuple(files), read.magic, prefix)


def _to_come(environment: Environment, package: Package, image_prefix: str) -> Listing:
    files = shipped_files(environment, package, image_prefix)
    compiles = any(each.how == "compiled" for each in files)
    listed = (ListedFile(each.path, each.size, each.executable, each.link, each.digest) for each in files)
    return Listing(tuple(listed), environment.interpreter.magic if compiles else "", image_prefix)


def _key(path: str) -> str:
    return _TAG.sub("", _STDLIB.sub(r"\1/python/", path))


def _reason(one: ListedFile, two: ListedFile, before: Listing, after: Listing) -> Reason | None:
    """Why a file of both sides differs; None if it is the same."""
    if one.link != two.link:
        return "link"
    if two.path.endswith(".pyc"):
        if before.magic != after.magic:
            return "Python version"
        # Byte code to come follows its module, which is compared.
        if not one.digest or not two.digest or one.digest == two.digest:
            return None
        # It holds the path of its module.
        return "byte code" if before.prefix == after.prefix else "prefix"
    if one.digest != two.digest:
        return "prefix" if one.neutral and one.neutral == two.neutral else _kind(two.path)
    if one.executable != two.executable:
        return "mode"
    return "Python version" if one.path != two.path else None


def _kind(path: str) -> Reason:
    if path.endswith(".pyc"):
        return "byte code"
    return "record" if _RECORD.fullmatch(path) else "content"


def _size(file: ListedFile) -> int | None:
    return file.size if file.digest or file.link is not None else None
