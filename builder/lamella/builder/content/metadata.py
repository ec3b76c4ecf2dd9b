"""Write installers' metadata in one canonical form, independent of installer, path and mirror.

Sources: PyPA's "Recording installed projects" and "Direct URL" specifications; conda's `conda-meta` records.
"""

from __future__ import annotations

import json
from binascii import b2a_base64
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lamella.builder.installed.conda_specs import without_source
from lamella.builder.urls import text_without_credentials, without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The installer, whether a user requested the package, and installers' own notes: not part of the package.
DROPPED = frozenset({"INSTALLER", "REQUESTED", "provenance_url.json", "uv_cache.json", "uv_build.json"})
RECORD = "RECORD"
DIRECT_URL = "direct_url.json"
PROVENANCE = frozenset({DIRECT_URL, "provenance_url.json"})
"""Sources of a distribution, in one shape: PyPA's "Direct URL data structure", PEP 710."""
REQUIREMENTS = frozenset({"METADATA", "PKG-INFO", "requires.txt"})
"""Metadata with a distribution's requirements, possibly with URLs from its author."""

# Fields of conda's record from the package itself, which every tool writes alike. Not the download URL, the archive
# format, nor the channel's data (sizes, times, licence families), which are not part of the package.
_CONDA_KEYS = ("build_number", "constrains", "depends", "license", "name", "noarch", "version")
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def record(site_packages: str, name: str, rows: Iterable[tuple[str, str, int]]) -> bytes:
    """Write a RECORD of `rows`: (path relative to the image prefix, sha256 in hex, size). `name` is its own path.

    Without byte code, as PyPA's specification allows: an uninstaller finds it by its source.
    """
    depth = site_packages.count("/") + 1 if site_packages else 0
    inside = f"{site_packages}/" if site_packages else ""
    lines = [f"{_quoted(name[len(inside) :])},,\n"]
    for path, digest, size in rows:
        shown = path[len(inside) :] if path.startswith(inside) else "../" * depth + path
        if "," in shown or '"' in shown or "\n" in shown or "\r" in shown:
            shown = _quoted(shown)
        if digest:
            hashed = b2a_base64(bytes.fromhex(digest), newline=False).translate(_URL_SAFE, b"=").decode()
            lines.append(f"{shown},sha256={hashed},{size}\n")
        else:
            lines.append(f"{shown},,\n")
    lines.sort()
    return "".join(lines).encode("utf-8", "surrogateescape")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(character in text for character in ',"\n\r') else text


def direct_url(content: bytes) -> bytes | None:
    """Return a direct_url.json without credentials, or None for a URL of this machine.

    A VCS keeps its commit, an archive its hashes. Folders and file:// archives are this machine's.
    """
    try:
        value = json.loads(content)
        url = without_credentials(value["url"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if urlsplit(url).scheme.rpartition("+")[2] in ("", "file"):
        return None
    kept: dict[str, object] = {"url": url}
    if isinstance(value.get("subdirectory"), str):
        kept["subdirectory"] = value["subdirectory"]
    vcs, archive = value.get("vcs_info"), value.get("archive_info")
    if isinstance(vcs, dict):
        names = ("vcs", "commit_id", "requested_revision")
        kept["vcs_info"] = {name: vcs[name] for name in names if isinstance(vcs.get(name), str)}
    elif isinstance(archive, dict):
        # pip writes `hash` and `hashes`, uv one of them: `hashes` is the specification's newer form.
        hashes = archive.get("hashes")
        if not isinstance(hashes, dict):
            algorithm, _, digest = str(archive.get("hash") or "").partition("=")
            hashes = {algorithm: digest} if digest else {}
        kept["archive_info"] = {"hashes": {str(key): str(digest) for key, digest in hashes.items()}} if hashes else {}
    else:
        return None
    return _json(kept)


def without_url_credentials(name: str, content: bytes) -> bytes:
    """Remove credentials from the URLs in METADATA, PKG-INFO or requires.txt (`name`).

    Applies to requirements and to other headers; the description is the author's text and stays.
    """
    if b"://" not in content:
        return content
    head, blank, rest = (content, b"", b"") if name == "requires.txt" else content.partition(b"\n\n")
    cleaned = text_without_credentials(head.decode("utf-8", "surrogateescape"))
    return cleaned.encode("utf-8", "surrogateescape") + blank + rest


def conda_record(content: bytes, paths: Mapping[str, str]) -> bytes | None:
    """Write a conda-meta record: the package's own fields, and `paths` relative to the image prefix, with their types.

    Omits the download URL and the user's request, which `conda_origins` keeps for the environment, this
    machine's package cache, and hashes of installed files, which Lamella may have rewritten. None if the
    record is not a JSON object.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    kept: dict[str, object] = {key: value[key] for key in _CONDA_KEYS if value.get(key) not in (None, "", [])}
    kept["build"] = value.get("build") or value.get("build_string") or ""
    for key in ("depends", "constrains"):
        specs = kept.get(key)
        if isinstance(specs, list):
            kept[key] = [without_source(str(spec)) for spec in specs]
    if value.get("noarch"):
        # Some tools add the platform of the installation.
        kept["subdir"] = "noarch"
    # conda removes `files`, rattler `paths_data`.
    listed = [{"_path": path, "path_type": kind} for path, kind in sorted(paths.items())]
    return _json(kept | {"files": sorted(paths), "paths_data": {"paths": listed, "paths_version": 1}})


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
