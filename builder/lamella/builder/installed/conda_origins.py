"""The origins of a conda environment's packages: channel, address, archive, and the user's requests.

None of it is part of a package, whose layer is the same from every channel. It ships as one small file of
the environment, so that conda, mamba and pixi find complete records on nodes (`lamella.layers.published.conda_meta`).

Sources: conda's `PrefixRecord` (conda/models/records.py) and `History` (conda/history.py); rattler's `PrefixRecord`.
"""

from __future__ import annotations

import ast
import json
import os
import re
from typing import TYPE_CHECKING

from lamella.builder.files.small_file import plain_text, read_small
from lamella.builder.installed.conda_specs import name, without_source
from lamella.builder.urls import without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lamella.builder.installed.distributions import Distribution

_TEXTS = ("fn", "md5", "sha256", "license_family", "arch", "platform", "package_type", "python_site_packages_path")
_NUMBERS = ("size", "timestamp")
_REQUESTS = re.compile(r"# (?P<what>update|install|create|remove|uninstall|neutered) specs: *(?P<specs>.*)")
_LARGEST = 16 << 20
"""Bytes of a history: the largest known have a hundredth."""


def origin(record: Mapping[str, object]) -> dict[str, object]:
    """Return what `record`, a file of `conda-meta`, says of the package's origin, without credentials."""
    found: dict[str, object] = {key: text for key in _TEXTS if (text := plain_text(record.get(key)))}
    found |= {key: record[key] for key in _NUMBERS if isinstance(record.get(key), int)}
    for key in ("url", "channel"):
        if text := without_credentials(plain_text(record.get(key))):
            found[key] = text
    if not record.get("noarch") and (subdir := plain_text(record.get("subdir"))):
        found["subdir"] = subdir
    # conda and rattler refuse a record without them.
    found.setdefault("fn", _file_name(record))
    found.setdefault("url", found["fn"] if "channel" not in found else f"{found['channel']}/{found['fn']}")
    if requested := _requested(record):
        found["requested_specs"] = requested
    return found


def origins(prefix: str, packages: Iterable[Distribution]) -> bytes:
    """Return the origins of `packages` and the user's requests, as JSON."""
    listed = list(packages)
    records = {package.records: dict(package.details) for package in listed}
    return json.dumps(
        {"records": records, "requested": requests(prefix, listed)}, sort_keys=True, separators=(",", ":")
    ).encode()


def requests(prefix: str, packages: Sequence[Distribution]) -> list[str]:
    """Return the specifications of packages that the user asked for, by name, without channels' addresses.

    conda reads them from its history, rattler and pixi from the records.
    """
    installed = {package.name for package in packages}
    found = {name(spec): spec for package in packages for spec in _strings(package.details.get("requested_specs"))}
    for line in _history(prefix):
        match = _REQUESTS.match(line)
        if not match:
            continue
        specs = {name(spec): without_source(spec) for spec in _parsed(match["specs"])}
        if match["what"] in ("remove", "uninstall"):
            found = {key: spec for key, spec in found.items() if key not in specs}
        else:
            found |= specs
    return [spec for key, spec in sorted(found.items()) if key in installed]


def _history(prefix: str) -> list[str]:
    try:
        content = read_small(os.path.join(prefix, "conda-meta", "history"), _LARGEST)
    except OSError:
        return []
    return content.decode("utf-8", "replace").splitlines()


def _parsed(specs: str) -> list[str]:
    """conda writes a Python list; before 4.4 it wrote names with commas."""
    try:
        return _strings(ast.literal_eval(specs))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [spec.strip() for spec in specs.split(",") if spec.strip()]


def _requested(record: Mapping[str, object]) -> list[str]:
    specs = _strings(record.get("requested_specs")) or [plain_text(record.get("requested_spec"))]
    return [without_source(spec) for spec in specs if spec and spec != "None"]


def _file_name(record: Mapping[str, object]) -> str:
    build = plain_text(record.get("build") or record.get("build_string"))
    return "-".join([plain_text(record.get("name")), plain_text(record.get("version")), build]) + ".conda"


def _strings(value: object) -> list[str]:
    return [text for text in map(plain_text, value) if text] if isinstance(value, (list, tuple)) else []
