"""Cloudera parcels: a tar.gz below NAME-VERSION, with `meta/parcel.json`, named NAME-VERSION-DISTRIBUTION.parcel.

Source: Cloudera Manager Extensions, "The parcel format", "The parcel.json file".
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.layers.errors import ExportError
from lamella.layers.exporting.members import generated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.layers.exporting.members import Member

ROOT = "/opt/cloudera/parcels"
"""Folder of a cluster's parcels, unless its administrator chose another."""

# Sourced by CDH's service scripts, where PARCELS_ROOT and PARCEL_DIRNAME name this parcel.
_ENVIRONMENT = """\
#!/bin/bash
_lamella_parcel="${PARCELS_ROOT}/${PARCEL_DIRNAME}"
if [ -z "${CDH_PYTHON:-}" ]; then
    export CDH_PYTHON="$_lamella_parcel/bin/python"
fi
for _lamella_script in "$_lamella_parcel"/etc/conda/activate.d/*.sh; do
    if [ -r "$_lamella_script" ]; then . "$_lamella_script"; fi
done
unset _lamella_parcel _lamella_script
"""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A parcel by its name."""

    name: str
    version: str
    distribution: str
    """Such as el7 or jammy."""

    @property
    def folder(self) -> str:
        """Name of its folder on the nodes."""
        return f"{self.name}-{self.version}"


def parcel_of(path: str) -> Parcel:
    """Read a parcel's name from that of its file. Raises `ExportError` for another form."""
    found = re.fullmatch(r"([^-]+)-(.+)-([^-]+)\.parcel", os.path.basename(path))
    if not found:
        raise ExportError(
            f"{path}: not the name of a parcel; use NAME-VERSION-DISTRIBUTION.parcel, such as "
            "envs-2026.11-el7.parcel, with no hyphen in NAME and DISTRIBUTION",
            code="invalid",
        )
    return Parcel(*found.groups())


def members(parcel: Parcel, packages: Iterable[tuple[str, str]]) -> list[Member]:
    """Return the parcel's own files; `packages` are names and versions."""
    return [
        generated("meta/conda_env.sh", _ENVIRONMENT.encode()),
        generated("meta/parcel.json", _document(parcel, packages)),
    ]


def _document(parcel: Parcel, packages: Iterable[tuple[str, str]]) -> bytes:
    document = {
        "schema_version": 1,
        "name": parcel.name,
        "version": parcel.version,
        "extraVersionInfo": {
            "baseVersion": parcel.version,
            "fullVersion": f"{parcel.version}-{parcel.distribution}",
            "patchCount": "0",
        },
        "components": [{"name": parcel.name, "version": parcel.version, "pkg_version": parcel.version}],
        "packages": [{"name": name, "version": version} for name, version in packages],
        "provides": ["spark-plugin"],
        "scripts": {"defines": "conda_env.sh"},
        "setActiveSymlink": True,
        "groups": [],
        "users": {},
    }
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"
