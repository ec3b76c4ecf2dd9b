"""What indexes have of a package for a target: the reason for each version that cannot be had, all of them in one go."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lamella.builder.indexes.client import IndexClient
from lamella.builder.indexes.pages import SDISTS, project_files
from lamella.builder.resolving import target_tags
from lamella.builder.resolving.question import Wheel
from lamella.builder.urls import file_without_credentials
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from packaging.version import Version

    from lamella.builder.indexes.model import Indexes
    from lamella.builder.indexes.pages import IndexFile
    from lamella.builder.resolving.model import Target

_THREADS = 12


@dataclass(frozen=True, slots=True)
class Offer:
    """The files that the first index with a package has of it."""

    name: str
    index: str
    """URL of that index, without credentials; empty if none has it."""
    files: tuple[IndexFile, ...] = ()

    def of(self, version: str) -> tuple[IndexFile, ...]:
        """Files of `version`."""
        # Names are parsed only if they may be of this version: numpy's page has 4,000 files.
        spelt = f"-{version}"
        likely = [file for file in self.files if spelt in file.filename] or self.files
        wanted = _normal(version)
        return tuple(file for file in likely if version_of(file.filename, self.name) == wanted)

    def wheel(self, version: str, target: Target) -> Wheel | None:
        """Best wheel of `version` for `target`; None if none fits."""
        files = {file.filename: file for file in self.of(version) if file.is_wheel and _takes(file, target)}
        chosen = target_tags.best(files, target)
        if not chosen:
            return None
        file = files[chosen]
        return Wheel(
            name=self.name,
            version=version,
            filename=chosen,
            url=file_without_credentials(file.url),
            sha256=file.sha256,
            size=file.size,
            index=self.index,
            query=urlsplit(file.url).query,
        )

    def sdist(self, version: str) -> IndexFile | None:
        """Source distribution of `version`; None without one."""
        return next((file for file in self.of(version) if not file.is_wheel), None)

    def nearest(self, version: str, target: Target, *, minor: bool) -> str:
        """Newest version with a wheel for `target`, of the same major.minor as `version` if `minor`; empty without one.

        No yanked one, and a pre-release only if `version` is one.
        """
        from packaging.version import InvalidVersion, Version

        try:
            installed = Version(version)
        except InvalidVersion:
            return ""
        fits = [
            found
            for found in sorted(self._versions(), reverse=True)
            if (not minor or _branch(found) == _branch(installed))
            and (installed.is_prerelease or not found.is_prerelease)
        ]
        return next((str(found) for found in fits if self.wheel(str(found), target)), "")

    def _versions(self) -> set[Version]:
        from packaging.version import Version

        found = {version_of(file.filename, self.name) for file in self.files if not file.yanked}
        return {Version(each) for each in found if each}

    def is_of_one_system(self) -> bool:
        """Whether no version has a wheel for Linux or for any system, and none comes as source."""
        return bool(self.files) and not any(
            not file.is_wheel or target_tags.is_for_linux(file.filename) for file in self.files
        )

    def has_linux_wheels(self, version: str) -> bool:
        """Whether `version` has a wheel for some Linux or for any system."""
        return any(file.is_wheel and target_tags.is_for_linux(file.filename) for file in self.of(version))

    def problem(self, version: str, target: Target) -> str:
        """Why `version` cannot be had for `target`, as one clause."""
        where = f"on {self.index}" if self.index else "on the configured indexes"
        files = self.of(version)
        if not self.files:
            return f"not {where}"
        if not files:
            return f"no version {version} {where}"
        wheels = [file for file in files if file.is_wheel]
        if not wheels:
            return f"only a source distribution {where}"
        refusing = next((file for file in wheels if target_tags.rank(file.filename, target) is not None), None)
        if refusing:
            return f"requires Python {escaped(refusing.requires_python, 60)}, not {target.python}"
        newer = next((file for file in wheels if self._for_newer_glibc(file.filename, target)), None)
        if newer:
            return f"its wheels need a newer glibc than {target.glibc}: {newer.filename}"
        return f"no wheel for {target.platform} and Python {target_tags.short_version(target.python)} {where}"

    def _for_newer_glibc(self, filename: str, target: Target) -> bool:
        return target_tags.rank(filename, replace(target, glibc="2.99")) is not None


def offers(names: Iterable[str], indexes: Indexes) -> dict[str, Offer]:
    """Return the offer of each package: of the first of its indexes that has it. Raises `IndexUnusable`."""
    wanted = sorted(set(names))
    with IndexClient(indexes) as client, ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(wanted, pool.map(functools.partial(_offer, client, indexes), wanted), strict=True))


def _offer(client: IndexClient, indexes: Indexes, name: str) -> Offer:
    merged: list[IndexFile] = []
    first = ""
    for index in indexes.for_package(name):
        files = project_files(client, index, name)
        if files is None:
            continue
        first = first or index.url
        merged += files
        if indexes.strategy == "first-index":
            break
    return Offer(name, first, tuple(merged))


def version_of(filename: str, name: str) -> str:
    """Version in the name of a wheel or source distribution of `name`; empty without one."""
    from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
    from packaging.version import InvalidVersion

    try:
        if filename.endswith(".whl"):
            return str(parse_wheel_filename(filename)[1])
        if filename.endswith((".tar.gz", ".zip")):
            found, version = parse_sdist_filename(filename)
            return str(version) if found == name else ""
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        pass
    ending = next((each for each in SDISTS if filename.endswith(each)), "")
    return _normal(filename.removesuffix(ending).rpartition("-")[2]) if ending else ""


def _takes(file: IndexFile, target: Target) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return not file.requires_python or SpecifierSet(file.requires_python).contains(target.python, prereleases=True)
    except InvalidSpecifier:
        return True


def _normal(version: str) -> str:
    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(version))
    except InvalidVersion:
        return ""


def _branch(version: Version) -> tuple[int, int, int]:
    return version.epoch, version.major, version.minor


def branch_range(version: str) -> str:
    """Specifier of the versions with the same major.minor; empty if `version` is not one of PEP 440."""
    from packaging.version import InvalidVersion, Version

    try:
        found = Version(version)
    except InvalidVersion:
        return ""
    epoch = f"{found.epoch}!" if found.epoch else ""
    return f"=={epoch}{found.major}.{found.minor}.*"
