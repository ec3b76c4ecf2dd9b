"""What a reference names: the environments of one index, by platform.

An index holds, for each platform, a runnable image for engines and a package manifest for nodes; this reads the
latter, and remembers the former's descriptor. See docs/concepts.md.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent, LayersError
from lamella.layers.oci.annotations import CERTIFICATES, CPU, DRIVERS, GLIBC, IMAGE, PREFIX, PYTHON
from lamella.layers.oci.documents import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    ImageConfig,
    Index,
    Layer,
    Manifest,
    Platform,
    layers_of,
)
from lamella.layers.oci.storage import fetch_document
from lamella.layers.published.package import PublishedPackage
from lamella.layers.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamella.layers.oci.reference import Reference
    from lamella.layers.oci.storage import ReadOnlyStorage
    from lamella.layers.trust import Trust


@dataclass(frozen=True, slots=True)
class PublishedEnvironment:
    """One environment as nodes see it. Each layer's descriptor carries the annotations of `annotations`."""

    platform: Platform
    descriptor: Descriptor
    """The package manifest's; of several, which have the layers among them, the first one's."""
    manifest: Manifest
    """As if it were one."""
    config: ImageConfig
    """As if it were one."""
    documents: tuple[Descriptor, ...]
    """Every package manifest and its config."""
    layers: tuple[Layer, ...]
    image: Descriptor | None
    """The runnable image's, where the index has one."""

    @property
    def packages(self) -> tuple[PublishedPackage, ...]:
        """The packages, one for each layer, in the manifest's order."""
        return tuple(PublishedPackage.of(layer) for layer in self.layers)

    def __repr__(self) -> str:
        python = f"Python {self.python} at {self.prefix} on {self.platform}"
        return f"<PublishedEnvironment {python}: {counted(len(self.layers), 'package')}>"

    @property
    def prefix(self) -> str:
        """The image prefix, such as /opt/env."""
        return self.manifest.annotations[PREFIX]

    @property
    def python(self) -> str:
        """The interpreter's version; empty where it was not recorded."""
        return self.manifest.annotations.get(PYTHON, "")

    @property
    def glibc(self) -> str:
        """The newest glibc symbol version that the environment needs; empty for none."""
        return self.manifest.annotations.get(GLIBC, "")

    @property
    def cpu_level(self) -> int:
        """The x86-64 level that the environment needs, 1 to 4; 1 where nothing is recorded."""
        level = self.manifest.annotations.get(CPU, "")
        return int(level) if level in ("2", "3", "4") else 1

    @property
    def drivers(self) -> tuple[str, ...]:
        """The libraries that it loads and that only a device's driver has, such as libcuda.so.1."""
        return tuple(self.manifest.annotations.get(DRIVERS, "").split())

    @property
    def certificates(self) -> tuple[str, ...] | None:
        """Where its OpenSSL looks for certificate authorities on a node, maybe nowhere; None where it brings its own."""
        found = self.manifest.annotations.get(CERTIFICATES)
        return None if found is None else tuple(found.split())


@dataclass(frozen=True, slots=True)
class PublishedIndex:
    """One index, read and verified."""

    reference: Reference
    """Pinned to the index's digest."""
    descriptor: Descriptor
    index: Index
    environments: tuple[PublishedEnvironment, ...]
    """At least one, in the index's order."""

    def __repr__(self) -> str:
        return f"<PublishedIndex {self.reference}: {counted(len(self.environments), 'environment')}>"


def read_index(storage: ReadOnlyStorage, reference: Reference, trust: Trust) -> PublishedIndex:
    """The environments that `reference` names in `storage`; its digest goes before its tag.

    Raises `NotFound`, `NotSigned` unless the key that `trust` requires signed it, `InvalidContent` without an environment,
    and what `fetch` raises.
    """
    descriptor = storage.resolve(str(reference.digest) if reference.digest else reference.tag)
    if trust.required_key:
        from lamella.layers.signing import cosign

        cosign.check(storage, descriptor.digest, trust.required_key)
    if descriptor.media_type not in INDEX_TYPES:
        raise InvalidContent(f"{reference}: not pushed by lamella, its media type is {descriptor.media_type}")
    index = Index.parse(fetch_document(storage, descriptor))
    parts: dict[str, list[Descriptor]] = {}
    for entry in index.manifests:
        if IMAGE in entry.annotations:
            parts.setdefault(entry.annotations[IMAGE], []).append(entry)
    environments = tuple(_environment(storage, entries, index) for entries in parts.values())
    if not environments:
        raise InvalidContent(f"{reference}: an image without packages; push the environment with lamella push")
    return PublishedIndex(reference.at(descriptor.digest), descriptor, index, environments)


def for_platform(published: PublishedIndex, platform: Platform) -> PublishedEnvironment:
    """The environment for `platform`, one without a variant serving any; else a `LayersError` naming those there are."""
    for environment in published.environments:
        if environment.platform == platform:
            return environment
    for environment in published.environments:
        if environment.platform == Platform(platform.os, platform.architecture):
            return environment
    there = ", ".join(str(environment.platform) for environment in published.environments)
    raise LayersError(f"{published.reference}: no environment for {platform}; use --platform with one of {there}")


# A process that mounts one environment again and again, as a node's agent does, reads its documents once: what they say
# takes as long to parse as the kernel takes to mount it. The bytes were verified, and bytes that are the same say the same.
_manifest = functools.lru_cache(maxsize=8)(Manifest.parse)
_config = functools.lru_cache(maxsize=8)(ImageConfig.parse)


def _environment(storage: ReadOnlyStorage, entries: Sequence[Descriptor], index: Index) -> PublishedEnvironment:
    """The environment whose package manifests are `entries`: one, or as many as the layers need that one can't have."""
    manifests: list[Manifest] = []
    configs: list[ImageConfig] = []
    layers: list[Layer] = []
    for entry in entries:
        if entry.media_type not in MANIFEST_TYPES:
            raise InvalidContent(
                f"{entry.digest}: marked as a package manifest, but its media type is {entry.media_type}"
            )
        manifest = _manifest(fetch_document(storage, entry))
        config = _config(fetch_document(storage, manifest.config))
        manifests.append(manifest)
        configs.append(config)
        layers += layers_of(manifest, config)
    first, config = manifests[0], configs[0]
    if any(each.annotations != first.annotations for each in manifests) or {each.platform for each in configs} != {
        config.platform
    }:
        raise InvalidContent(f"{entries[0].digest}: its package manifests contradict each other")
    if len(manifests) > 1:
        first = replace(first, layers=tuple(layer.descriptor for layer in layers))
        config = replace(config, diff_ids=tuple(layer.diff_id for layer in layers))
    prefix = first.annotations.get(PREFIX, "")
    # Nodes join it to a folder of their own and mount there: it may not lead out of it.
    if not prefix.startswith("/") or "\0" in prefix or any(part in {"", ".", ".."} for part in prefix.split("/")[1:]):
        raise InvalidContent(f"{entries[0].digest}: image prefix {prefix[:100]!r} is not an absolute path")
    image = entries[0].annotations[IMAGE]
    return PublishedEnvironment(
        config.platform,
        entries[0],
        first,
        config,
        (*entries, *(manifest.config for manifest in manifests)),
        tuple(layers),
        next((entry for entry in index.manifests if str(entry.digest) == image), None),
    )
