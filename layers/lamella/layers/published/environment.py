"""What a reference names: the environments of one index, by platform.

An index holds, for each platform, a runnable image for engines and a package manifest for nodes; this reads the
latter, and remembers the former's descriptor. See docs/concepts.md.
"""

from __future__ import annotations

import functools
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from lamella.layers.errors import InvalidContent, LayersError, NotFound
from lamella.layers.oci.annotations import CERTIFICATES, CPU, DRIVERS, GLIBC, IMAGE, PREFIX, PYTHON
from lamella.layers.oci.documents import (
    CONFIG,
    DOCKER_CONFIG,
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
from lamella.layers.oci.values import is_image_prefix
from lamella.layers.published.package import PublishedPackage
from lamella.layers.settings.policy import machine_policy
from lamella.layers.text import counted, escaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lamella.layers.oci.documents import Digest
    from lamella.layers.oci.reference import Reference
    from lamella.layers.oci.storage import Fetcher, ReadOnlyStorage
    from lamella.layers.settings.trust import Trust


MAX_ENVIRONMENTS = 64
"""Environments of one index: Go has fewer platforms than that."""
MAX_LAYERS = 20_000
"""Layers of all environments that are read of one index. The largest environments known have a tenth of that."""

_MAX_DRIVERS = 256
_GLIBC = re.compile(r"(?:[0-9]{1,4}(?:\.[0-9]{1,4}){0,3})?")


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
    """The runnable image's, if the index has one."""

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
        """The interpreter's version; empty if not recorded."""
        return self.manifest.annotations.get(PYTHON, "")

    @property
    def glibc(self) -> str:
        """The newest glibc symbol version that the environment needs; empty for none."""
        return self.manifest.annotations.get(GLIBC, "")

    @property
    def cpu_level(self) -> int:
        """The x86-64 level that the environment needs, 1 to 4; 1 if not recorded."""
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
    """In the index's order; those for other platforms are left out if one was asked for."""
    platforms: tuple[Platform, ...]
    """Every platform that it has an environment for, in its order."""

    def __repr__(self) -> str:
        return f"<PublishedIndex {self.reference}: {counted(len(self.environments), 'environment')}>"


def read_index(
    storage: ReadOnlyStorage, reference: Reference, trust: Trust, platform: Platform | None = None
) -> PublishedIndex:
    """Read the environments that `reference` names in `storage`; its digest goes before its tag.

    `platform`: read only the environments that `for_platform` chooses from; the index itself says which those are. Raises
    `NotFound`, `NotSigned` unless it is signed as `trust` and this machine's policy require, `InvalidContent` without an
    environment, and what `fetch` raises.
    """
    checks = bool(trust.required_key or trust.required_identity or machine_policy().required_keys)
    if checks:
        # Imported only then: a command starts faster without it.
        from lamella.layers.signing import cosign

        cosign.check_keys(trust)
    descriptor = storage.resolve(str(reference.digest) if reference.digest else reference.tag)
    if checks:
        cosign.require(storage, reference, descriptor.digest, trust)
    if descriptor.media_type not in INDEX_TYPES:
        raise InvalidContent(_without_index(storage, reference, descriptor))
    index = Index.parse(fetch_document(storage, descriptor))
    groups = _groups(index, str(reference))
    reader = _Reader(storage)
    environments = []
    platforms = []
    for group in groups:
        announced = group.image.platform if group.image else None
        if not platform or not announced or announced in _served_by(platform):
            environment = reader.environment(group)
            environments.append(environment)
            announced = environment.platform
        platforms.append(announced)
    return PublishedIndex(reference.at(descriptor.digest), descriptor, index, tuple(environments), tuple(platforms))


def available_environments(fetcher: Fetcher, index: Index, name: str) -> Iterator[PublishedEnvironment]:
    """Each environment of an index whose documents `fetcher` has: a pull reads those of one platform alone."""
    reader = _Reader(fetcher)
    for group in _groups(index, name):
        with suppress(NotFound):
            yield reader.environment(group)


def for_platform(published: PublishedIndex, platform: Platform) -> PublishedEnvironment:
    """Return the environment for `platform`; one without a variant serves any. Raise a `LayersError` that names all others."""
    for served in _served_by(platform):
        for environment in published.environments:
            if environment.platform == served:
                return environment
    others = ", ".join(map(str, published.platforms))
    raise LayersError(f"{published.reference}: no environment for {platform}; use --platform with one of {others}")


def _served_by(platform: Platform) -> tuple[Platform, Platform]:
    return platform, Platform(platform.os, platform.architecture)


# A process that mounts one environment again and again, as a node's agent does, reads its documents once: what they say
# takes as long to parse as the kernel takes to mount it. The bytes were verified, and bytes that are the same say the same.
_manifest = functools.lru_cache(maxsize=8)(Manifest.parse)
_config = functools.lru_cache(maxsize=8)(ImageConfig.parse)


class _Group(NamedTuple):
    """The package manifests of one environment, and its runnable image."""

    entries: tuple[Descriptor, ...]
    image: Descriptor | None


def _groups(index: Index, name: str) -> list[_Group]:
    """The environments of an index, before anything of them is read."""
    images = {str(entry.digest): entry for entry in index.manifests if IMAGE not in entry.annotations}
    parts: dict[str, dict[Digest, Descriptor]] = {}
    for entry in index.manifests:
        if IMAGE not in entry.annotations:
            continue
        if entry.media_type not in MANIFEST_TYPES:
            raise InvalidContent(
                f"{entry.digest}: marked as a package manifest, but its media type is {entry.media_type}"
            )
        part = parts.setdefault(entry.annotations[IMAGE], {})
        if entry.digest in part:
            raise InvalidContent(f"{name}: lists the package manifest {entry.digest} twice")
        part[entry.digest] = entry
    if not parts:
        raise InvalidContent(
            f"{name}: an index of {counted(len(index.manifests), 'image')} without package manifests; if a tool left them "
            f"out, copy all with lamella copy SOURCE {name}; else push the environment with lamella push"
        )
    if len(parts) > MAX_ENVIRONMENTS:
        raise InvalidContent(f"{name}: has {len(parts)} environments; at most {MAX_ENVIRONMENTS} are read")
    return [_Group(tuple(part.values()), images.get(image)) for image, part in parts.items()]


class _Reader:
    """Reads environments, each document once, up to a number of layers for all of them."""

    def __init__(self, storage: Fetcher) -> None:
        self._storage = storage
        self._read: dict[Digest, tuple[Manifest, ImageConfig]] = {}
        self._left = MAX_LAYERS

    def environment(self, group: _Group) -> PublishedEnvironment:
        """The environment of a group: of one package manifest, or of as many as the layers need that one can't have."""
        manifests: list[Manifest] = []
        configs: list[ImageConfig] = []
        layers: list[Layer] = []
        name = str(group.entries[0].digest)
        for entry in group.entries:
            manifest, config = self._documents(entry)
            manifests.append(manifest)
            configs.append(config)
            layers += layers_of(manifest, config)
            self._left -= len(manifest.layers)
            if self._left < 0:
                raise InvalidContent(f"{name}: with it, the index has more than {MAX_LAYERS:,} layers; refused")
        first, config = manifests[0], configs[0]
        platforms = {each.platform for each in configs}
        if group.image and group.image.platform:
            platforms.add(group.image.platform)
        if any(each.annotations != first.annotations for each in manifests) or len(platforms) > 1:
            raise InvalidContent(f"{name}: its package manifests contradict each other")
        _check_needs(first.annotations, name)
        if len(manifests) > 1:
            first = replace(first, layers=tuple(layer.descriptor for layer in layers))
            config = replace(config, diff_ids=tuple(layer.diff_id for layer in layers))
        documents = (*group.entries, *(manifest.config for manifest in manifests))
        return PublishedEnvironment(
            config.platform, group.entries[0], first, config, documents, tuple(layers), group.image
        )

    def _documents(self, entry: Descriptor) -> tuple[Manifest, ImageConfig]:
        if entry.digest not in self._read:
            manifest = _manifest(fetch_document(self._storage, entry))
            self._read[entry.digest] = manifest, _config(fetch_document(self._storage, manifest.config))
        return self._read[entry.digest]


def _without_index(storage: ReadOnlyStorage, reference: Reference, descriptor: Descriptor) -> str:
    """Why a manifest is not an environment, for a message: tools that copy one platform leave the index behind."""
    if descriptor.media_type not in MANIFEST_TYPES:
        return f"{reference}: not an image index, its media type is {escaped(descriptor.media_type, 100)}"
    manifest = Manifest.parse(fetch_document(storage, descriptor))
    copied = f"if a tool copied it alone, copy all with lamella copy SOURCE {reference}"
    if PREFIX in manifest.annotations:
        return f"{reference}: the package manifest of an environment, without its index; {copied}"
    if manifest.artifact_type or manifest.config.media_type not in (CONFIG, DOCKER_CONFIG):
        kind = escaped(manifest.artifact_type or manifest.config.media_type, 100)
        return f"{reference}: an artifact of type {kind}, not an environment; list others with lamella tags"
    platform = escaped(str(ImageConfig.parse(fetch_document(storage, manifest.config)).platform), 100)
    return (
        f"{reference}: an image for {platform} without an index of packages; {copied}; else push the environment with "
        "lamella push"
    )


def _check_needs(annotations: Mapping[str, str], name: str) -> None:
    # Nodes join the prefix to a folder of their own and mount there, and write it into scripts.
    if not is_image_prefix(prefix := annotations.get(PREFIX, "")):
        raise InvalidContent(
            f"{name}: {escaped(prefix, 100)}: not an image prefix; use an absolute path such as /opt/env"
        )
    if not _GLIBC.fullmatch(glibc := annotations.get(GLIBC, "")):
        raise InvalidContent(f"{name}: {escaped(glibc, 100)}: not a version of glibc")
    if len(drivers := annotations.get(DRIVERS, "").split()) > _MAX_DRIVERS or any("/" in each for each in drivers):
        raise InvalidContent(f"{name}: not a list of up to {_MAX_DRIVERS} libraries of drivers")
