"""Read what an environment has, on macOS, Windows and Linux, from its files.

The environment's interpreter runs only if no file states its version.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from lamella.builder.cache_folder import cache_folder
from lamella.builder.content.metadata import DIRECT_URL
from lamella.builder.errors import NotAnEnvironment
from lamella.builder.files.small_file import read_json, read_small
from lamella.builder.installed.conda import conda_owned, conda_packages
from lamella.builder.installed.conda_origins import requests
from lamella.builder.installed.conda_specs import name as spec_name
from lamella.builder.installed.distributions import Distribution, distributions, headers, normalised
from lamella.builder.installed.eggs import eggs
from lamella.builder.local.editable_projects import find_editable_projects
from lamella.builder.prefix.foreign import header_version
from lamella.builder.prefix.locate import locate
from lamella.builder.prefix.sites import Site
from lamella.builder.prefix.systems import System, is_windows_layout, short_versions, site_packages, system_of
from lamella.builder.resolving.model import InstalledCondaPackage, InstalledDistribution, InstalledPackages
from lamella.builder.urls import without_credentials
from lamella.builder.wheels.install import project
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lamella.builder.prefix.locate import LocatedPrefix
    from lamella.builder.prefix.systems import SystemName

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*")
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tar.bz2", ".tgz", ".tar.xz")
_SUBDIRS: dict[str, SystemName] = {"osx": "darwin", "win": "windows", "linux": "linux"}
_MACHINES = {"64": "amd64", "32": "386", "aarch64": "arm64", "arm64": "arm64"}
_ANY = re.compile(r"-none-any\s*$")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SECONDS = 60
_MOST = 1 << 20
"""Bytes of METADATA: its fields are before the description."""
_SYSTEM = "Operating System :: "


def installed_packages(prefix: str, here: System | None = None) -> InstalledPackages:
    """Read the packages of the environment at `prefix`, which may be for another system than `here`.

    Raises `NotAnEnvironment` for a folder without a Python, or if no file states its version and it does not run here.
    """
    here = here or System.here()
    located = locate(prefix)
    is_conda = located.kind == "conda"
    conda, findings = conda_packages(located.prefix) if is_conda else ([], [])
    system = _of_conda(conda) or system_of(os.path.realpath(located.executable), here)
    version = _version(located, conda)
    read = [_read(site, located, version) for site in _sites(located, version)]
    placed = {each.records: folder for found, _ in read for each, folder in found}
    found = list({each.name: each for those, _ in reversed(read) for each, _ in those}.values())
    if is_conda:
        found, replaced = conda_owned(conda, found, lambda path: _digest(os.path.join(located.prefix, path)))
        findings += replaced
    asked = {spec_name(spec): spec for spec in requests(located.prefix, conda)}
    required = {name for each in found for name in _required(each.requires)}
    return InstalledPackages(
        prefix=located.prefix,
        python=version,
        system=system.name,
        architecture=system.architecture,
        pypi=tuple(sorted((_pypi(each, placed[each.records], required) for each in found), key=_name_of)),
        conda=tuple(sorted((_conda(each, asked) for each in conda), key=_name_of)),
        findings=(*findings, *(each for _, those in read for each in those), *_damaged(found)),
    )


def _name_of(package: InstalledDistribution | InstalledCondaPackage) -> str:
    return package.name


def _of_conda(packages: Iterable[Distribution]) -> System | None:
    """System of a conda environment, from the subdir of its interpreter; None without a record of it."""
    for each in packages:
        name, _, machine = str(each.details.get("subdir", "")).partition("-")
        if each.name == "python" and name in _SUBDIRS:
            return System(_SUBDIRS[name], _MACHINES.get(machine, machine))
    return None


def _version(located: LocatedPrefix, conda: Iterable[Distribution]) -> str:
    """Version of the interpreter, from a record, `pyvenv.cfg` or a header; it runs if none states it."""
    stated = [each.version for each in conda if each.name == "python"]
    # uv and virtualenv write version_info; virtualenv's goes on as `3.12.4.final.0`.
    stated += [located.configuration.get(key, "") for key in ("version", "version_info")]
    headers_of = [os.path.join(located.prefix, "include", "patchlevel.h")]
    headers_of += [
        os.path.join(located.prefix, "include", f"python{short}", "patchlevel.h")
        for short in short_versions(located.prefix)
    ]
    stated += [header_version(path) for path in headers_of]
    for text in stated:
        if match := _VERSION.match(text):
            return match[0]
    return _asked(located.executable)


def _asked(executable: str) -> str:
    question = "import sys; print(*sys.version_info[:3], sep='.')"
    try:
        done = subprocess.run(
            [executable, "-I", "-S", "-B", "-c", question],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        match = _VERSION.match(done.stdout.strip())
    except (OSError, subprocess.SubprocessError):
        match = None
    if match is None:
        raise NotAnEnvironment(
            f"{executable}: does not run here, and no file states its version; make the environment with venv, uv or conda"
        )
    return match[0]


def _sites(located: LocatedPrefix, version: str) -> list[Site]:
    """Existing folders of packages: its own, then its base interpreter's if it sees those."""
    short = ".".join(version.split(".")[:2])
    inner = site_packages(located.executable, short)
    folders = [(os.path.join(located.prefix, *inner.split("/")), False)]
    home = located.configuration.get("home", "")
    if home and located.configuration.get("include-system-site-packages", "").lower() == "true":
        base = home if is_windows_layout(located.executable) else os.path.dirname(home)
        debian = (f"local/lib/python{short}/dist-packages", "lib/python3/dist-packages")
        folders += [(os.path.join(base, *each.split("/")), True) for each in (inner, *debian)]
    return [Site(folder, borrowed) for folder, borrowed in folders if os.path.isdir(folder)]


def _read(site: Site, located: LocatedPrefix, version: str) -> tuple[list[tuple[Distribution, str]], list[Finding]]:
    """Distributions of a folder of packages, each with the folder of its metadata, and findings about editable ones."""
    path = site_packages(located.executable, ".".join(version.split(".")[:2]))
    own = {os.path.join(folder, "") for folder in (located.prefix, os.path.realpath(located.prefix))}

    def inside(source: str) -> bool:
        return any(os.path.join(source, "").startswith(folder) for folder in own)

    found = [*distributions(site.source, path, (located.prefix,)), *eggs(site.source, path)]
    projects = find_editable_projects(site, path, found, inside, cache_folder())
    return [(each, _metadata(each, site, path)) for each in projects.distributions], projects.findings


def _metadata(distribution: Distribution, site: Site, path: str) -> str:
    inner = distribution.records.removeprefix(f"{path}/")
    folder = os.path.join(site.source, *inner.split("/")) if inner else ""
    return folder if os.path.exists(folder) else ""


def _pypi(distribution: Distribution, folder: str, required: set[str]) -> InstalledDistribution:
    local = ""
    if distribution.origin == "local" or distribution.editable:
        local = project(distribution) or _path(distribution.source)
    elif distribution.source.startswith("file://") and not distribution.source.lower().endswith(_ARCHIVES):
        local = _path(distribution.source)
    pure = not distribution.editable and _is_pure(folder)
    return InstalledDistribution(
        name=distribution.name,
        version=distribution.version,
        requires=distribution.requires,
        requested=distribution.name not in required or os.path.isfile(os.path.join(folder, "REQUESTED")),
        source=distribution.source,
        editable=distribution.editable,
        local=local,
        pure=pure,
        folder=folder,
        sha256=_archive_digest(folder) if distribution.source else "",
        systems=_systems(folder) if pure else (),
    )


def _archive_digest(folder: str) -> str:
    """Recorded sha256 of the archive that was installed. Source: PyPA specifications, "Direct URL data structure"."""
    try:
        archive = read_json(os.path.join(folder, DIRECT_URL))["archive_info"]
        hashes = archive.get("hashes") or dict([str(archive.get("hash") or "=").split("=", 1)])
        digest = str(hashes.get("sha256") or "").lower()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return digest if _SHA256.fullmatch(digest) else ""


def _path(url: str) -> str:
    """Path of a `file:` URL in this system's form. Unquoted only if it does not exist as it is, as tools differ."""
    plain = url.removeprefix("file://")
    return plain if os.path.exists(plain) else url2pathname(urlsplit(unquote(url)).path)


def _is_pure(folder: str) -> bool:
    try:
        tags = headers(read_small(os.path.join(folder, "WHEEL"))).get("tag", [])
    except OSError:
        return False
    return bool(tags) and all(_ANY.search(tag) for tag in tags)


def _systems(folder: str) -> tuple[str, ...]:
    try:
        classifiers = headers(read_small(os.path.join(folder, "METADATA"), _MOST)).get("classifier", ())
    except OSError:
        return ()
    return tuple(each.removeprefix(_SYSTEM) for each in classifiers if each.startswith(_SYSTEM))


def _conda(package: Distribution, asked: Mapping[str, str]) -> InstalledCondaPackage:
    url = str(package.details.get("url", ""))
    channel, _, subdir = url.rpartition("/")[0].rpartition("/") if "://" in url else ("", "", "")
    return InstalledCondaPackage(
        name=package.name,
        version=package.version,
        build=package.build,
        channel=without_credentials(channel or str(package.details.get("channel", ""))),
        subdir=subdir or str(package.details.get("subdir", "noarch")),
        requested=asked.get(package.name, ""),
    )


def _required(requirements: Iterable[str]) -> Iterator[str]:
    """Names that are required, whatever the system. Requirements of extras do not count."""
    for text in requirements:
        found = _NAME.match(text)
        if found and "extra" not in text.partition(";")[2]:
            yield normalised(found[0])


def _digest(path: str) -> str:
    try:
        return hashlib.sha256(read_small(path)).hexdigest()
    except OSError:
        return ""


def _damaged(found: Iterable[Distribution]) -> list[Finding]:
    return [
        Finding("warning", "record", each.name, f"{each.name}: {each.trouble}; reinstall it")
        for each in found
        if each.trouble
    ]
