"""Read the distributions in a folder of packages: name, version, source.

Sources: PyPA specifications, "Recording installed projects", "Core metadata", "Direct URL data
structure"; PEP 503 for names. importlib.metadata takes five times as long, and raises on damaged metadata.
"""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamella.builder.files.small_file import plain_text, read_json, read_small, read_text
from lamella.builder.installed.record import recorded
from lamella.builder.urls import without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lamella.builder.environment import Origin

_MOST = 1 << 20
"""Maximum bytes of METADATA to read: the headers come before the long description."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed unit, by its metadata: a pip distribution, or a conda package."""

    origin: Origin
    name: str
    """Normalised for a pip distribution."""
    version: str
    records: str
    """Folder (or single file) of its metadata, relative to the prefix."""
    files: Mapping[str, str] | None
    """Path relative to the prefix to sha256, or to an empty string if not recorded; None without a file list."""
    build: str = ""
    source: str = ""
    """Source of the installation, without credentials; empty for an index."""
    direct: bool = False
    """Whether it was installed from a URL, a repository or a folder, and not from an index."""
    editable: bool = False
    """Whether its direct_url.json marks it as editable."""
    tops: tuple[str, ...] = ()
    """Top-level names, if there is no file list."""
    scripts: tuple[str, ...] = ()
    """Names of its console scripts, if no record names their files."""
    requires: tuple[str, ...] = ()
    """Requires-Dist as written, or conda's depends without channels' addresses."""
    constrains: tuple[str, ...] = ()
    """Constraints of a conda package on others, if those are installed."""
    requires_python: str = ""
    installer: str = ""
    details: Mapping[str, object] = field(default_factory=dict)
    """Origin of a conda package, from its record, without credentials."""
    trouble: str = ""
    """Fault of its metadata; empty for none."""


def normalised(name: str) -> str:
    """`Foo.Bar` as `foo-bar`. Source: PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(source: str, site: str, prefixes: Iterable[str]) -> list[Distribution]:
    """Distributions in the folder `source`, which belongs at `site` (relative to the prefix), sorted by folder name."""
    try:
        names = sorted(os.listdir(source))
    except OSError:
        return []
    return [
        _read(os.path.join(source, name), site, tuple(prefixes))
        for name in names
        if name.endswith((".dist-info", ".egg-info")) and not name.startswith("~")
    ]


def _read(folder: str, site: str, prefixes: tuple[str, ...]) -> Distribution:
    base = os.path.basename(folder)
    named, _, rest = plain_text(base).rpartition(".")[0].partition("-")
    version = re.split(r"-py\d", rest)[0]
    metadata = next(
        (path for path in (f"{folder}/METADATA", f"{folder}/PKG-INFO", folder) if os.path.isfile(path)), None
    )
    fields: dict[str, list[str]] = {}
    trouble = "no METADATA"
    if metadata:
        try:
            fields = headers(read_small(metadata, _MOST))
            trouble = "" if "name" in fields and "version" in fields else "METADATA without a name and version"
        except OSError as error:
            trouble = f"METADATA cannot be read ({error.strerror})"
    url, editable, url_trouble = _direct_url(folder)
    try:
        files = recorded(folder, site, prefixes)
    except (OSError, csv.Error) as error:
        files, trouble = None, f"RECORD cannot be read ({getattr(error, 'strerror', None) or error})"
    return Distribution(
        origin="pypi",
        name=normalised(fields.get("name", [named])[0] or named),
        version=fields.get("version", [version])[0] or version,
        records=f"{site}/{base}",
        files=files,
        source=url,
        direct=bool(url or url_trouble),
        editable=editable,
        tops=_lines(os.path.join(folder, "top_level.txt")) if files is None else (),
        scripts=script_names(_lines(os.path.join(folder, "entry_points.txt"))) if files is None else (),
        requires=tuple(fields.get("requires-dist", ())),
        requires_python=fields.get("requires-python", [""])[0],
        installer="".join(_lines(os.path.join(folder, "INSTALLER"))),
        trouble=trouble or url_trouble,
    )


def _lines(path: str) -> tuple[str, ...]:
    try:
        return tuple(stripped for line in read_text(path).split("\n") if (stripped := line.strip()))
    except OSError:
        return ()


def script_names(lines: Iterable[str]) -> tuple[str, ...]:
    """Names in the `lines` of entry_points.txt for which installers write programs."""
    section, names = "", []
    for line in map(str.strip, lines):
        if line.startswith("["):
            section = line.strip("[] ")
        elif section in {"console_scripts", "gui_scripts"} and "=" in line:
            names.append(line.partition("=")[0].strip())
    return tuple(names)


def headers(content: bytes) -> dict[str, list[str]]:
    """Header fields of METADATA by name in lower case. Continued lines are joined."""
    text = re.split(rb"\r?\n\r?\n", content, maxsplit=1)[0].decode("utf-8", "replace")
    found: dict[str, list[str]] = {}
    last: list[str] | None = None
    for line in text.splitlines():
        if line[:1] in ("", " ", "\t"):
            if last:
                last[-1] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        if colon:
            last = found.setdefault(name.strip().lower(), [])
            last.append(value.strip())
    return found


def _direct_url(folder: str) -> tuple[str, bool, str]:
    """Source without credentials, editable, fault."""
    try:
        value = read_json(os.path.join(folder, "direct_url.json"))
        url = without_credentials(plain_text(value["url"]))
        vcs = value.get("vcs_info") or {}
        if vcs:
            url = f"{plain_text(vcs.get('vcs', 'git'))}+{url}"
            if revision := plain_text(vcs.get("commit_id") or vcs.get("requested_revision")):
                url += f"@{revision}"
        if subdirectory := plain_text(value.get("subdirectory")):
            url += f"#subdirectory={subdirectory}"
        return url, bool((value.get("dir_info") or {}).get("editable")), ""
    except (FileNotFoundError, NotADirectoryError):
        return "", False, ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", False, "direct_url.json cannot be read"
