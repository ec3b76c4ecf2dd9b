"""Lock files: pylock.toml of a resolution, and what the locks beside a project state about the installed packages.

Sources: PEP 751 for pylock.toml; uv's uv.lock; pip's requirements files with hashes.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lamella.builder.errors import BuilderError
from lamella.builder.files.small_file import read_toml
from lamella.builder.indexes.model import PackageIndex, parsed
from lamella.builder.indexes.requirements import requirements_in
from lamella.builder.installed.distributions import normalised
from lamella.builder.resolving.sources import filename_in, is_repository, is_source, parsed_repository
from lamella.builder.resolving.target_tags import machine, short_version
from lamella.builder.urls import file_without_credentials
from lamella.layers.published.findings import Finding
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from lamella.builder.indexes.model import Indexes
    from lamella.builder.resolving.model import Artifact, InstalledPackages, Resolution

_NAMED = 8
"""Packages that a finding names."""
_REQUIREMENT = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?\s*==\s*([^\s;]+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Locked:
    """A package as a lock file states it."""

    version: str
    lock: str
    """Name of the lock file."""
    index: str = ""
    """URL of its index, without credentials; empty if the lock does not state it."""
    files: Mapping[str, str] = field(default_factory=dict)
    """sha256 by file name."""
    hashes: frozenset[str] = frozenset()
    """sha256 of files without a name."""


def locked(folder: str, installed: InstalledPackages) -> dict[str, Locked]:
    """Return what the lock files in `folder` state about packages, by name.

    Packages whose installed version is locked are of uv.lock, else pylock.toml, else requirements.txt with hashes. For
    the others, which the first lock with an index of theirs states, the index alone counts: it is the same for each
    version. Raises `BuilderError` for a file that is not a lock.
    """
    versions = {each.name: each.version for each in installed.pypi}
    agreeing: dict[str, Locked] = {}
    others: dict[str, Locked] = {}
    for stated in _locks(folder):
        agreeing = agreeing or {name: each for name, each in stated if versions.get(name) == each.version}
        for name, each in stated:
            if each.index:
                others.setdefault(name, each)
    return {**others, **agreeing}


def outdated(folder: str, installed: InstalledPackages) -> Iterator[Finding]:
    """One finding for the first lock in `folder`, if it has other versions than the installed ones. Raises as `locked`."""
    versions = {each.name: each.version for each in installed.pypi}
    for stated in _locks(folder):
        agreeing = {name for name, each in stated if versions.get(name) == each.version}
        others = {name: each for name, each in stated if name in versions and name not in agreeing}
        if others:
            named = [f"{name} {each.version} ({versions[name]} is installed)" for name, each in sorted(others.items())]
            rest = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
            lock = next(iter(others.values())).lock
            message = f"{lock} has other versions, which are not used: {', '.join(named[:_NAMED])}{rest}"
            yield Finding("warning", "lock", lock, escaped(message, 1000))
        if others or agreeing:
            return


def _locks(folder: str) -> Iterator[list[tuple[str, Locked]]]:
    """Packages of each lock in `folder`, the most preferred first."""
    for filename, read in (("uv.lock", _of_uv), ("pylock.toml", _of_pylock), ("requirements.txt", _of_requirements)):
        path = os.path.join(folder, filename)
        if not os.path.isfile(path):
            continue
        try:
            yield list(read(path))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # The text of a parser may quote a line, and means nothing to a reader of the lock.
            raise BuilderError(f"{path}: not a lock file; lock the project again, or remove it") from None


def with_locked_origins(indexes: Indexes, found: Mapping[str, Locked]) -> Indexes:
    """`indexes` with each package of `found` pinned to the index that its lock names.

    A package that came from a private index is so never looked for on another one.
    """
    origins = {name: each.index for name, each in found.items() if each.index and name not in indexes.pins}
    known = {each.url for each in indexes.indexes}
    new = sorted({url for url in origins.values() if url not in known})
    added = tuple(PackageIndex(url, explicit=True) for url in new)
    return replace(indexes, indexes=(*added, *indexes.indexes), pins={**origins, **indexes.pins})


def with_locked_digest(artifact: Artifact, found: Mapping[str, Locked]) -> Artifact:
    """`artifact` with the hash that its lock states of its file, if nothing else states one."""
    lock = found.get(artifact.name)
    if artifact.sha256 or lock is None or lock.version != artifact.version:
        return artifact
    return replace(artifact, sha256=lock.files.get(filename_in(artifact.url), ""))


def disagreements(artifacts: Iterable[Artifact], found: Mapping[str, Locked]) -> Iterator[Finding]:
    """One finding for each artifact whose hash its lock does not have.

    Raises `BuilderError` if a file of the same name has another hash there: it was replaced on the index.
    """
    for each in artifacts:
        lock = found.get(each.name)
        if lock is None or lock.version != each.version or not each.sha256:
            continue
        filename = filename_in(each.url)
        stated = lock.files.get(filename)
        if stated and stated != each.sha256:
            raise BuilderError(
                f"{each.name} {each.version}: {filename} on {each.index or 'its server'} has another sha256 than in "
                f"{lock.lock}; nothing was used, find out who replaced it"
            )
        if not stated and each.sha256 not in lock.hashes:
            message = f"{filename} of {each.name} {each.version} is not among the hashes of {lock.lock}"
            yield Finding("warning", "unverified", each.name, escaped(message, 1000))


def lock_document(resolution: Resolution, paths: Mapping[Artifact, str]) -> bytes:
    """Return pylock.toml of what ships: URL and sha256 of each file, for `uv pip install` and pip. The same each time.

    `paths` are the downloaded files. Local projects and files of this disk are left out: no URL leads to them. So are
    versions that are not of PEP 440, and source distributions without a hash: the format has no place for them.
    """
    import tomli_w
    from packaging.pylock import Pylock

    target = resolution.target
    short, name = short_version(target.python), machine(target.platform.architecture)
    environment = ("sys_platform == 'linux'", f"platform_machine == '{name}'", f"python_version == '{short}'")
    packages = [_package(each, paths) for each in resolution.artifacts if _is_locked(each)]
    document = {
        "lock-version": "1.0",
        "environments": [" and ".join(environment)],
        "requires-python": f"=={short}.*",
        "created-by": "lamella",
        "packages": sorted(packages, key=lambda each: str(each["name"])),
    }
    Pylock.from_dict(document).validate()
    return tomli_w.dumps(document).encode()


def _is_locked(artifact: Artifact) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        Version(artifact.version)
    except InvalidVersion:
        return False
    has_hash = artifact.sha256 or is_repository(artifact) or not is_source(artifact)
    return bool(artifact.kind == "wheel" and has_hash and not artifact.url.startswith("file:"))


def _package(artifact: Artifact, paths: Mapping[Artifact, str]) -> dict[str, Any]:
    package: dict[str, Any] = {"name": artifact.name, "version": artifact.version}
    if repository := parsed_repository(artifact.url):
        url, commit, below = repository
        package["vcs"] = {"type": "git", "url": url, "commit-id": commit} | ({"subdirectory": below} if below else {})
        return package
    filename = filename_in(artifact.url)
    file: dict[str, Any] = {"url": artifact.url}
    if artifact.size:
        file["size"] = artifact.size
    digest = artifact.sha256 or _digest(paths.get(artifact, ""))
    if not artifact.index:
        # An archive of its own URL, which an installer records as such.
        return package | {"archive": file | {"hashes": {"sha256": digest}}}
    package["index"] = artifact.index
    file = {"name": filename, **file, "hashes": {"sha256": digest}}
    return package | ({"sdist": file} if is_source(artifact) else {"wheels": [file]})


def _digest(path: str) -> str:
    hashed = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                hashed.update(block)
    except OSError as error:
        raise BuilderError(f"{path}: cannot be read for its hash: {error.strerror}; push again") from None
    return hashed.hexdigest()


def _of_uv(path: str) -> Iterator[tuple[str, Locked]]:
    for package in read_toml(path).get("package", []):
        source = package.get("source", {})
        registry = str(source.get("registry", ""))
        files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
        yield (
            normalised(package["name"]),
            Locked(
                version=_version(package),
                lock="uv.lock",
                index=_index(registry, path) if "://" in registry else "",
                files=dict(_stated(files, _hash_of_uv)),
            ),
        )


def _of_pylock(path: str) -> Iterator[tuple[str, Locked]]:
    for package in read_toml(path).get("packages", []):
        files = [*package.get("wheels", []), *filter(None, [package.get("sdist"), package.get("archive")])]
        yield (
            normalised(package["name"]),
            Locked(
                version=_version(package),
                lock="pylock.toml",
                index=_index(str(package.get("index", "")), path),
                files=dict(_stated(files, lambda file: file.get("hashes", {}).get("sha256"))),
            ),
        )


def _of_requirements(path: str) -> Iterator[tuple[str, Locked]]:
    for line in requirements_in(path):
        found, hashes = _REQUIREMENT.match(line), _HASH.findall(line)
        if found and hashes:
            yield normalised(found[1]), Locked(found[2], "requirements.txt", hashes=frozenset(hashes))


def _index(url: str, lock: str) -> str:
    return parsed(url, lock).url if url else ""


def _version(package: Mapping[str, Any]) -> str:
    """Version of a locked package; empty without one. Raises `ValueError` for one that is not of PEP 440."""
    from packaging.version import Version

    version = package.get("version", "")
    if version:
        Version(version)
    return str(version)


def _hash_of_uv(file: Mapping[str, Any]) -> object:
    algorithm, colon, digest = str(file.get("hash", "")).partition(":")
    return digest if algorithm == "sha256" or not colon else None


def _stated(files: Iterable[Any], digest: Callable[[Any], object]) -> Iterator[tuple[str, str]]:
    """Names and hashes of files. Raises `ValueError` for a sha256 that is not one; other hashes are not read."""
    for file in files:
        url = file_without_credentials(str(file.get("url") or file.get("path") or ""))
        name = str(file.get("name") or filename_in(url))
        found = digest(file)
        if found is None:
            continue
        if not _SHA256.fullmatch(str(found).lower()):
            raise ValueError(found)
        if name:
            yield name, str(found).lower()
