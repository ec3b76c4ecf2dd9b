"""conda's records of an environment, completed by what its own installation knows of them.

A package's layer has a record that is the same from every channel. What differs between environments, such
as the address of the download, is in one file of the environment, `ORIGINS`:
`{"records": {"conda-meta/click-8.1-0.json": {"channel": …, "fn": …, "url": …}}, "requested": ["click"]}`.
conda, mamba and pixi find it in the records themselves, and read `conda-meta/history`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ORIGINS = ".lamella/conda.json"
HISTORY = "conda-meta/history"
_RECORD = re.compile(r"conda-meta/[^/]+\.json")
_TIME = "1980-01-02 00:00:00"
"""A history names times; this is the time of every file of a layer."""


def completed(records: Mapping[str, bytes], origins: bytes) -> dict[str, bytes]:
    """Return the whole content of each of `records` (path to content), and the history; empty if `origins` is damaged."""
    known = _parsed(origins)
    details = known.get("records")
    if not isinstance(details, dict):
        return {}
    made = {}
    installed = []
    for path, record in sorted(records.items()):
        more = details.get(path)
        if not _RECORD.fullmatch(path) or not isinstance(more, dict) or not more:
            continue
        # The record is canonical JSON, and has none of these keys: no need to parse megabytes of paths.
        made[path] = b"{" + json.dumps(more, sort_keys=True).encode()[1:-1] + b"," + record.lstrip()[1:]
        installed.append(f"+{_distribution(path, more)}")
    requested = known.get("requested")
    specs = [str(spec) for spec in requested] if isinstance(requested, list) else []
    lines = [f"==> {_TIME} <==", "# cmd: lamella", *installed]
    lines += [f"# update specs: {json.dumps(specs)}"] if specs else []
    made[HISTORY] = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
    return made


def _distribution(path: str, more: Mapping[str, object]) -> str:
    """Return conda's name of a package in a history: channel/subdir::name-version-build.

    A record of `noarch` has its subdir in the layer.
    """
    name = path.rpartition("/")[2].removesuffix(".json")
    channel = str(more.get("channel") or "").rstrip("/")
    subdir = str(more.get("subdir") or "noarch")
    if not channel.endswith(f"/{subdir}"):
        channel = f"{channel}/{subdir}" if channel else subdir
    return f"{channel}::{name}"


def _parsed(content: bytes) -> dict[str, object]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
