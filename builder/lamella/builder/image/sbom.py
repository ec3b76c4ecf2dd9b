"""Software bill of materials of a pushed environment, as CycloneDX 1.6.

The same environment gives the same bytes: no serial number, no time. Sources: CycloneDX 1.6 JSON
reference; the package URL specification's types `pypi`, `conda` and `generic`; PyPA's core metadata
for licences.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from lamella.builder.content.entry import read_file
from lamella.builder.image import licences
from lamella.builder.image.dependency_graph import Node, edges, roots
from lamella.builder.installed.requirements import marker_environment
from lamella.builder.urls import without_credentials
from lamella.layers.attaching.listing import SBOM
from lamella.layers.oci.documents import canonical_json
from lamella.layers.oci.values import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.builder.environment import Environment, Package
    from lamella.builder.image.documents import PackageLayer

_ROOT = "environment"
_LONGEST_SUPPLIER = 200
MEDIA_TYPE = SBOM

_IN_URLS = "%:/?#[]@!$&'()*+,;=~"
"""RFC 3986: characters not to escape in a URL; the schema refuses others, such as a space."""


def sbom(packages: Iterable[tuple[Package, PackageLayer]], environment: Environment) -> bytes:
    """Return the document: the environment as root, one component for each package, and the graph of both.

    A component's hash is its layer's diff_id.
    """
    described = [_Described.of(package, layer) for package, layer in packages]
    markers = marker_environment(environment.interpreter.version, environment.platform)
    nodes = [Node(each.ref, each.package.name, each.package.origin, each.requires) for each in described]
    graph = edges(nodes, markers)
    dependencies = {_ROOT: roots(graph)} | {ref: sorted(graph[ref]) for ref in sorted(graph)}
    return canonical_json(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {
                "component": _root(environment),
                "tools": {"components": [{"type": "application", "name": "lamella"}]},
            },
            "components": sorted((_component(each) for each in described), key=lambda component: component["bom-ref"]),
            "dependencies": [
                {"ref": ref, "dependsOn": others} if others else {"ref": ref} for ref, others in dependencies.items()
            ],
        }
    )


@dataclass(frozen=True, slots=True)
class _Described:
    """A package, with what its installer recorded."""

    package: Package
    layer: PackageLayer
    conda: dict[str, Any]
    """The conda record; empty for other packages."""
    headers: tuple[tuple[str, str], ...]
    """Header lines of METADATA; empty for conda packages."""

    @classmethod
    def of(cls, package: Package, layer: PackageLayer) -> _Described:
        conda = _conda_record(package)
        return cls(package, layer, conda, () if conda else _headers(package))

    @property
    def ref(self) -> str:
        return _purl(self.package, self.conda) or f"{self.package.origin}:{self.package.name}"

    @property
    def requires(self) -> list[str]:
        depends = self.conda.get("depends")
        if isinstance(depends, list):
            return [each for each in depends if isinstance(each, str)]
        return self.values("Requires-Dist")

    def values(self, name: str) -> list[str]:
        """The values of a header, without empty ones and the placeholder of old tools."""
        return [value for key, value in self.headers if key == name and value not in ("", "UNKNOWN")]


def _root(environment: Environment) -> dict[str, Any]:
    # Without the reference: one environment pushed to two places has one bill of materials.
    return {
        "type": "application",
        "bom-ref": _ROOT,
        "name": "environment",
        "description": f"Python {environment.interpreter.version} environment for {environment.platform}",
        "properties": [
            {"name": "dev.lamella.platform", "value": str(environment.platform)},
            {"name": "dev.lamella.python", "value": environment.interpreter.version},
        ],
    }


def _component(described: _Described) -> dict[str, Any]:
    package, layer = described.package, described.layer
    component: dict[str, Any] = {
        "type": "library" if package.origin in ("pypi", "conda", "local") else "platform",
        "bom-ref": described.ref,
        "name": package.name,
        "hashes": [{"alg": "SHA-256", "content": layer.built.diff_id.hex}],
        "properties": [
            {"name": "dev.lamella.origin", "value": package.origin},
            {"name": "dev.lamella.layer", "value": str(layer.built.digest)},
        ],
    }
    if purl := _purl(package, described.conda):
        component["purl"] = purl
    if package.version:
        component["version"] = package.version
    if found := _licences(described):
        component["licenses"] = found
    if supplier := _supplier(described):
        component["supplier"] = {"name": supplier}
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


def _licences(described: _Described) -> list[dict[str, Any]]:
    if described.conda:
        return licences.of_conda(described.conda.get("license"))
    classified = [
        value.rpartition("::")[2].strip() for value in described.values("Classifier") if value.startswith("License ::")
    ]
    expression, named = described.values("License-Expression"), described.values("License")
    return licences.of_distribution(expression[-1] if expression else "", named[-1] if named else "", classified)


def _supplier(described: _Described) -> str:
    """The names of maintainers, else of authors; of a conda package, the channel. Addresses are left out."""
    if described.conda:
        return clean_text(_channel(described.conda)) or ""
    from email.utils import getaddresses  # in a function: it imports socket

    for who in ("Maintainer", "Author"):
        addresses = getaddresses(described.values(f"{who}-email"))
        names = [*described.values(who), *(name for name, _ in addresses if name)]
        if names:
            return ", ".join(dict.fromkeys(names))[:_LONGEST_SUPPLIER]
    return ""


def _headers(package: Package) -> tuple[tuple[str, str], ...]:
    """Header lines of METADATA. Continuation lines, which begin with a space, are left out."""
    wanted = {f"{package.records}/METADATA", f"{package.records}/PKG-INFO"}
    content = b"".join(_content(package, wanted))
    lines = content.decode("utf-8", "replace").partition("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in lines if not line.startswith((" ", "\t")))
    return tuple((key, value.strip()) for key, _, value in pairs)


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
