"""Read conda packages from their records in `conda-meta`, as conda, mamba, micromamba and pixi write them.

Source: conda's `PrefixRecord` (conda/models/records.py), rattler's `PrefixRecord`. The record has every
path and hash: no package cache or conda command is needed. Read as plain JSON, since py-rattler takes
as long.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from lamella.builder.files.small_file import plain_text, read_json
from lamella.builder.installed.conda_origins import origin
from lamella.builder.installed.conda_specs import without_source
from lamella.builder.installed.distributions import Distribution
from lamella.builder.urls import without_credentials
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

META = "conda-meta"

_LEFT_OUT = {
    "pkgs": "conda's package cache",
    "envs": "conda's other environments",
    "conda-bld": "conda-build's own folder",
    ".cph_tmp": "conda's own",
    "CACHEDIR.TAG": "made for backup programs",
    f"{META}/history": "conda's log of its users' requests, which is written anew",
    f"{META}/pixi": "made by pixi for itself",
    f"{META}/pixi_env_prefix": "made by pixi for itself",
    f"{META}/.conda-lock": "conda's own lock file",
    ".nonadmin": "conda's own",
}
_SHIPS = f"{META}/state"
"""Variables that the environment sets; `secrets` checks them."""
_PROJECT_PATHS = re.compile(r"\.(c~|conda_trash|mamba_trash).*|.*\.c~")
_STATIC = re.compile(r"lib/python3\.\d+t?/config-[^/]+/libpython[^/]*\.a")


def conda_skip(path: str, name: str) -> str | None:
    """Reason to leave out a path of a conda environment, or None."""
    if path in _LEFT_OUT:
        return _LEFT_OUT[path]
    if path.startswith(f"{META}/") and not path.endswith(".json") and path != _SHIPS:
        return "a tool's own file, with specs and URLs of its user"
    if _STATIC.fullmatch(path):
        return "only needed to build programs that embed Python"
    return "deleted by conda, and not yet gone" if _PROJECT_PATHS.fullmatch(name) else None


def conda_packages(prefix: str) -> tuple[list[Distribution], list[Finding]]:
    """Packages recorded at `prefix`, by name, and findings for unreadable records."""
    found: dict[str, Distribution] = {}
    findings: list[Finding] = []
    folder = os.path.join(prefix, META)
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".json"):
            continue
        path = f"{META}/{name}"
        try:
            package = _package(path, read_json(os.path.join(folder, name)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"{path}: cannot be read ({_reason(error)}); its package's files count as unowned; reinstall it"
            findings.append(Finding("warning", "record", path, message))
            continue
        earlier = found.get(package.name)
        if earlier:
            message = f"{package.name}: recorded twice, by {earlier.records} and {path}; the later install ships"
            findings.append(Finding("warning", "duplicate", package.name, message))
            if _time(prefix, earlier) > _time(prefix, package):
                continue
        found[package.name] = package
    return list(found.values()), findings


def _package(path: str, record: Mapping[str, object]) -> Distribution:
    name = plain_text(record["name"])
    if not name or name != record["name"]:
        raise ValueError("no package name")
    files = _files(record)
    files[path] = ""
    url, channel = plain_text(record.get("url")), plain_text(record.get("channel"))
    source = url if "://" in url else channel if "://" in channel else ""
    return Distribution(
        origin="conda",
        name=name,
        version=plain_text(record.get("version")),
        records=path,
        files=files,
        build=plain_text(record.get("build") or record.get("build_string")),
        source=without_credentials(source),
        requires=_specs(record.get("depends")),
        constrains=_specs(record.get("constrains")),
        installer="conda",
        details=origin(record),
    )


def _specs(specs: object) -> tuple[str, ...]:
    return tuple(without_source(plain_text(spec)) for spec in specs) if isinstance(specs, list) else ()


def _files(record: Mapping[str, object]) -> dict[str, str]:
    """Path to sha256 on disk; empty if it cannot be known."""
    # Before conda 4.3 there is no paths_data; `files` has only names.
    listed = record.get("files")
    files: dict[str, str] = dict.fromkeys(map(str, listed), "") if isinstance(listed, list) else {}
    data = record.get("paths_data")
    paths = data.get("paths") if isinstance(data, dict) else None
    site = next((path[: at + 1] for path in files if (at := path.find("/site-packages/")) > 0), "")
    for item in paths if isinstance(paths, list) else ():
        path = _linked(str(item["_path"]), files, site)
        if item.get("path_type") == "directory" or item.get("path_type") == "softlink":
            digest = ""  # of a link: the hash of its target or of its text, depending on the tool
        elif item.get("sha256_in_prefix"):
            digest = str(item["sha256_in_prefix"])
        elif item.get("prefix_placeholder") or str(item.get("path_type", "hardlink")) != "hardlink":
            digest = ""  # changed by the install, which the record does not describe
        else:
            digest = str(item.get("sha256") or "")
        files[path] = digest
    return files


def _linked(path: str, files: Mapping[str, str], site: str) -> str:
    """Path at which a file of a `noarch: python` package is on disk.

    conda's own records have it in `files` alone; rattler's have it everywhere. Source: conda's
    `get_python_noarch_target_path`.
    """
    if path in files:
        return path
    scripts = "python-scripts/"
    mapped = f"bin/{path[len(scripts) :]}" if path.startswith(scripts) else site + path
    return mapped if mapped in files else path


def _time(prefix: str, package: Distribution) -> int:
    try:
        return os.stat(os.path.join(prefix, package.records)).st_mtime_ns
    except OSError:
        return 0


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or "unreadable"
    return "it lacks " + str(error) if isinstance(error, KeyError) else str(error) or type(error).__name__


def conda_owned(
    conda: list[Distribution], pip: list[Distribution], digest: Callable[[str], str]
) -> tuple[list[Distribution], list[Finding]]:
    """Distributions of `pip` that pip installed itself. Conda packages contain the metadata of theirs.

    `digest` returns the sha256 of a path on this disk. If pip replaced a conda package, there is a finding.
    """
    owners = {path: package for package in conda for path in package.files or ()}
    by_pip: list[Distribution] = []
    findings: list[Finding] = []
    names = {package.name: package for package in conda}
    for each in pip:
        installer = f"{each.records}/INSTALLER"
        recorded = owners.get(installer) or owners.get(f"{each.records}/METADATA") or owners.get(each.records)
        if recorded is not None:
            expected = (recorded.files or {}).get(installer, "")
            untouched = digest(installer) == expected if expected else each.installer in ("", "conda")
            if untouched:
                continue
        by_pip.append(each)
        stale = recorded or names.get(each.name)
        if stale is not None:
            message = (
                f"{each.name} {each.version}: installed by {each.installer or 'pip'} over conda's {stale.name} "
                f"{stale.version}, whose record is out of date; the files of {each.installer or 'pip'} ship"
            )
            findings.append(Finding("warning", "replaced", each.name, message))
    return by_pip, findings
