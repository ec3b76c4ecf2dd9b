"""Software bill of materials of a pushed environment, as CycloneDX 1.6.

The same environment gives the same bytes: no serial number, no time. Sources: CycloneDX 1.6 JSON
reference; the package URL specification's types `pypi`, `conda` and `generic`; PyPA's core metadata
for licences.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from lamella.builder.content.entry import read_file
from lamella.builder.urls import without_credentials
from lamella.layers.oci.documents import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.builder.environment import Package
    from lamella.builder.image.documents import PackageLayer

MEDIA_TYPE = "application/vnd.cyclonedx+json"

_IN_URLS = "%:/?#[]@!$&'()*+,;=~"
"""RFC 3986: characters not to escape in a URL; the schema refuses others, such as a space."""
_LONGEST_NAME = 80
"""Characters of the longest licence name: a longer License field is the licence's text."""


def sbom(packages: Iterable[tuple[Package, PackageLayer]]) -> bytes:
    """Return the document: one component for each package, whose hash is its layer's diff_id."""
    components = [_component(package, layer) for package, layer in packages]
    return canonical_json(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"tools": {"components": [{"type": "application", "name": "lamella"}]}},
            "components": sorted(components, key=lambda component: component["bom-ref"]),
        }
    )


def _component(package: Package, layer: PackageLayer) -> dict[str, Any]:
    conda = _conda_record(package)
    purl = _purl(package, conda)
    component: dict[str, Any] = {
        "type": "library" if package.origin in ("pypi", "conda", "local") else "platform",
        "bom-ref": purl or f"{package.origin}:{package.name}",
        "name": package.name,
        "hashes": [{"alg": "SHA-256", "content": layer.built.diff_id.hex}],
        "properties": [
            {"name": "dev.lamella.origin", "value": package.origin},
            {"name": "dev.lamella.layer", "value": str(layer.built.digest)},
        ],
    }
    if purl:
        component["purl"] = purl
    if package.version:
        component["version"] = package.version
    licences = _licences(package, conda)
    if licences:
        component["licenses"] = licences
    if package.source.startswith(("https://", "http://", "git+", "ssh://")):
        kind = "vcs" if package.source.startswith(("git+", "ssh:")) else "distribution"
        component["externalReferences"] = [{"type": kind, "url": quote(package.source, safe=_IN_URLS)}]
    return component


def _purl(package: Package, conda: dict[str, Any]) -> str:
    version = f"@{quote(package.version, safe='')}" if package.version else ""
    if package.origin == "pypi":
        return f"pkg:pypi/{quote(package.name, safe='')}{version}"
    if package.origin == "conda":
        known = {"build": package.build, "channel": _channel(conda), "subdir": str(conda.get("subdir") or "")}
        qualifiers = urlencode({key: value for key, value in known.items() if value}, quote_via=quote)
        return f"pkg:conda/{quote(package.name, safe='')}{version}{f'?{qualifiers}' if qualifiers else ''}"
    if package.origin in ("python", "local"):
        return f"pkg:generic/{quote(package.name, safe='')}{version}"
    return ""  # unowned files


def _channel(conda: dict[str, Any]) -> str:
    # Only the channel's last name: the host and folders before it may be private, or hold a token.
    channel = without_credentials(str(conda.get("channel") or ""))
    path = urlsplit(channel).path if "://" in channel else channel
    return path.rstrip("/").removesuffix(f"/{conda.get('subdir')}").rpartition("/")[2]


def _licences(package: Package, conda: dict[str, Any]) -> list[dict[str, Any]]:
    if conda:
        named = conda.get("license")
        return [{"license": {"name": str(named)}}] if named else []
    expression, named, classified = "", "", []
    for line in _metadata(package):
        key, _, value = line.partition(":")
        value = value.strip()
        if key == "License-Expression":
            expression = value
        elif key == "License":
            named = value
        elif key == "Classifier" and value.startswith("License ::"):
            classified.append(value.rpartition("::")[2].strip())
    if expression:
        return [{"expression": expression}]
    names = classified or ([named] if 0 < len(named) <= _LONGEST_NAME and named != "UNKNOWN" else [])
    return [{"license": {"name": name}} for name in names]


def _metadata(package: Package) -> list[str]:
    """Header lines of METADATA. Readers skip continuation lines, which begin with a space."""
    wanted = {f"{package.records}/METADATA", f"{package.records}/PKG-INFO"}
    content = b"".join(_content(package, wanted))
    return content.decode("utf-8", "replace").partition("\n\n")[0].splitlines()


def _conda_record(package: Package) -> dict[str, Any]:
    if package.origin != "conda":
        return {}
    wanted = {
        file.path for file in package.files if file.path.startswith("conda-meta/") and file.path.endswith(".json")
    }
    try:
        value = json.loads(b"".join(_content(package, wanted)))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _content(package: Package, wanted: set[str]) -> Iterable[bytes]:
    for file in package.files:
        if file.path in wanted and file.target is None:
            return read_file(file)
    return ()
