"""What installers write about a package, in one canonical form: the same whoever installed it, where, from which mirror.

Sources: PyPA's "Recording installed projects" and "Direct URL" specifications; conda's `conda-meta` records.
"""

from __future__ import annotations

import json
import re
from binascii import b2a_base64
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

# Who installed it, whether somebody asked for it by name, and an installer's own notes: not the package's content.
DROPPED = frozenset({"INSTALLER", "REQUESTED", "uv_cache.json", "uv_build.json"})
RECORD = "RECORD"
DIRECT_URL = "direct_url.json"

_CONDA_KEYS = (
    "arch",
    "build",
    "build_number",
    "channel",
    "constrains",
    "depends",
    "features",
    "fn",
    "license",
    "license_family",
    "md5",
    "name",
    "noarch",
    "platform",
    "python_site_packages_path",
    "sha256",
    "size",
    "subdir",
    "timestamp",
    "track_features",
    "url",
    "version",
)
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_CONDA_TOKEN = re.compile(r"/t/[^/]*(?=/)")


def record(site_packages: str, name: str, rows: Iterable[tuple[str, str, int]]) -> bytes:
    """A RECORD of what ships: `rows` are (path relative to the image prefix, sha256 in hex, size), `name` its own path.

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
    """A direct_url.json without credentials, or None where what it names means nothing on another machine.

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


def without_credentials(url: str) -> str:
    """`url` without user, password, conda's `/t/<token>/`, query and fragment: each has been seen to hold a secret.

    The user `git` stays: it is an ssh server's door, not a secret, and the URL does not work without it.
    """
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    netloc = f"git@{host}" if at and user == "git" else host
    return urlunsplit((parts.scheme, netloc, _CONDA_TOKEN.sub("", parts.path), "", ""))


def conda_record(content: bytes, paths: Iterable[str]) -> bytes | None:
    """A conda-meta record of what ships: the package's own fields, and `paths` relative to the image prefix.

    Left out are where this machine keeps its package cache, what its user asked for, and hashes of installed files,
    which Lamella may have rewritten. None where the record is no JSON object.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    kept: dict[str, object] = {key: value[key] for key in _CONDA_KEYS if value.get(key) not in (None, "", [])}
    for key in ("channel", "url"):
        text = kept.get(key)
        if isinstance(text, str):
            kept[key] = without_credentials(text) if "://" in text else text
            if text.startswith(("file:", "/")):
                del kept[key]
    return _json(kept | {"files": sorted(paths)})


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
