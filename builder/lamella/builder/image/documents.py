"""Documents of a pushed environment: package manifest, runnable image, and the index of both.

A pure function of its arguments: the same environment and flags give the same index digest on any
machine. Sources: image-spec v1.1 (manifest.md, config.md, annotations.md); buildkit's attestation
storage, for the marks that make engines skip the package manifest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lamella.builder.errors import BuilderError
from lamella.layers.oci.annotations import (
    CERTIFICATES,
    CPU,
    DOCKER_REFERENCE_DIGEST,
    DOCKER_REFERENCE_TYPE,
    DRIVERS,
    GLIBC,
    IMAGE,
    KEY,
    ORIGIN,
    PACKAGE,
    PREFIX,
    PYTHON,
    UNPACKED,
    VERSION,
)
from lamella.layers.oci.documents import (
    CONFIG,
    DOCKER_LAYER_GZIP,
    INDEX,
    LAYER_GZIP,
    MANIFEST,
    UNKNOWN_PLATFORM,
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    Layer,
    Manifest,
    Platform,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamella.builder.environment import Needs
    from lamella.builder.layer.cache import BuiltLayer

MANIFEST_LAYERS = 500
"""Maximum layers of one package manifest, ECR's limit for an image. Further layers go to further manifests."""

CREATED = "1980-01-01T00:00:00Z"
"""Creation time of every image: the time of its files, so that its digest depends on its content alone."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CREATED = "org.opencontainers.image.created"
_TITLE = "org.opencontainers.image.title"
_BASE_NAME = "org.opencontainers.image.base.name"
_BASE_DIGEST = "org.opencontainers.image.base.digest"
_OURS = frozenset({_CREATED, _BASE_NAME, _BASE_DIGEST})
_TIME = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class PackageLayer:
    """A built package."""

    name: str
    version: str
    origin: str
    key: str
    built: BuiltLayer


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """A layer of the runnable image, of one package or a bundle. `members`: names and versions of its packages."""

    members: tuple[str, ...]
    key: str
    built: BuiltLayer


@dataclass(frozen=True, slots=True)
class Base:
    """Image below the environment."""

    name: str
    """Reference from the user, without a digest."""
    digest: Digest
    layers: tuple[Layer, ...]
    config: ImageConfig


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """Command and description of the runnable image. An empty field takes the base's value, or Python."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    """NAME=value."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Annotations of the index and of the runnable image's manifest, besides Lamella's own."""
    created: str = CREATED
    """Creation time of the image (RFC 3339); part of its digest."""

    def __post_init__(self) -> None:
        if not _TIME.fullmatch(self.created):
            raise BuilderError(
                f"--created {self.created}: not a time in RFC 3339 form; use one such as 2026-01-31T12:00:00Z",
                code="invalid",
            )
        for name in self.annotations:
            if not name or name.startswith("dev.lamella.") or name in _OURS:
                raise BuilderError(f"--annotation {name}: reserved for Lamella; use another name", code="invalid")


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest, config or index, with its descriptor."""

    descriptor: Descriptor
    content: bytes


@dataclass(frozen=True, slots=True)
class Documents:
    """Documents to push after the layers: blobs, then manifests, then the index that the tag names."""

    configs: tuple[Document, ...]
    manifests: tuple[Document, ...]
    index: Document


@dataclass(frozen=True, slots=True)
class Pair:
    """Entries of an index for one platform."""

    image: Descriptor
    """Descriptor of the runnable image, with the real platform."""
    packages: tuple[Descriptor, ...]
    """Descriptors of the package manifests, which share the layers."""


@dataclass(frozen=True, slots=True)
class About:
    """Facts about an environment for the annotations of its manifests."""

    platform: Platform
    image_prefix: str
    python: str
    needs: Needs


def documents(
    about: About,
    packages: Sequence[PackageLayer],
    image: Sequence[ImageLayer],
    *,
    base: Base | None = None,
    settings: ImageSettings | None = None,
    others: Sequence[Pair] = (),
) -> Documents:
    """Make every document of one environment; its index also contains `others`, for other platforms."""
    settings = settings or ImageSettings()
    image_config, image_manifest = _image(about, image, base, settings)
    parts = [packages[start : start + MANIFEST_LAYERS] for start in range(0, len(packages), MANIFEST_LAYERS)] or [()]
    package_documents = [_packages(about, part, settings) for part in parts]
    ours = Pair(
        replace(image_manifest.descriptor, platform=about.platform),
        tuple(
            replace(
                manifest.descriptor,
                platform=UNKNOWN_PLATFORM,
                annotations={
                    IMAGE: str(image_manifest.descriptor.digest),
                    DOCKER_REFERENCE_TYPE: "attestation-manifest",
                    DOCKER_REFERENCE_DIGEST: str(image_manifest.descriptor.digest),
                },
            )
            for _, manifest in package_documents
        ),
    )
    # Sorted by platform, so that the order of pushes does not matter.
    pairs = sorted((ours, *others), key=lambda pair: str(pair.image.platform))
    index = Index(
        tuple(descriptor for pair in pairs for descriptor in (pair.image, *pair.packages)),
        {**settings.annotations, _CREATED: settings.created},
    ).to_json()
    return Documents(
        (image_config, *(config for config, _ in package_documents)),
        (image_manifest, *(manifest for _, manifest in package_documents)),
        Document(Descriptor.of(INDEX, index), index),
    )


def _packages(about: About, packages: Sequence[PackageLayer], settings: ImageSettings) -> tuple[Document, Document]:
    config = ImageConfig(
        about.platform,
        tuple(package.built.diff_id for package in packages),
        created=settings.created,
        history=tuple(_step([f"{package.name} {package.version}".rstrip()], settings) for package in packages),
    ).to_json()
    config_document = Document(Descriptor.of(CONFIG, config), config)
    about_it = {PREFIX: about.image_prefix, PYTHON: about.python}
    if about.needs.glibc:
        about_it[GLIBC] = about.needs.glibc
    if about.needs.level > 1:
        about_it[CPU] = str(about.needs.level)
    if about.needs.drivers:
        about_it[DRIVERS] = " ".join(about.needs.drivers)
    if about.needs.certificates:
        about_it[CERTIFICATES] = " ".join(about.needs.certificates) or " "
    manifest = Manifest(
        config_document.descriptor, tuple(_package_descriptor(package) for package in packages), about_it
    ).to_json()
    return config_document, Document(Descriptor.of(MANIFEST, manifest), manifest)


def _package_descriptor(package: PackageLayer) -> Descriptor:
    about = {
        PACKAGE: package.name,
        ORIGIN: package.origin,
        KEY: package.key,
        UNPACKED: str(package.built.unpacked),
    }
    if package.version:
        about[VERSION] = package.version
    return Descriptor(package.built.media_type, package.built.digest, package.built.size, about)


def _image(
    about: About, layers: Sequence[ImageLayer], base: Base | None, settings: ImageSettings
) -> tuple[Document, Document]:
    under = base.config if base else ImageConfig(about.platform, ())
    config = replace(
        under,
        platform=about.platform,
        diff_ids=(*under.diff_ids, *(layer.built.diff_id for layer in layers)),
        env=_env(under.env, about.image_prefix, settings.env),
        # As in a Dockerfile: an entrypoint from the user discards the base's arguments.
        entrypoint=settings.entrypoint or under.entrypoint,
        cmd=settings.cmd or (() if settings.entrypoint else under.cmd) or _python(about, under, settings),
        labels={**under.labels, **settings.labels},
        created=settings.created,
        history=(*_history(under), *(_step(layer.members, settings) for layer in layers)),
        # As in FROM: ONBUILD triggers are for builds, and nothing here runs them.
        more={name: value for name, value in under.more.items() if name != "OnBuild"},
    ).to_json()
    config_document = Document(Descriptor.of(CONFIG, config), config)
    descriptors = [_oci_typed(layer.descriptor) for layer in base.layers] if base else []
    for layer in layers:
        about_it = {
            KEY: layer.key,
            UNPACKED: str(layer.built.unpacked),
            _TITLE: ", ".join(layer.members)[:200],
        }
        descriptors.append(Descriptor(layer.built.media_type, layer.built.digest, layer.built.size, about_it))
    manifest = Manifest(config_document.descriptor, tuple(descriptors), _named(base, settings)).to_json()
    return config_document, Document(Descriptor.of(MANIFEST, manifest), manifest)


def _python(about: About, under: ImageConfig, settings: ImageSettings) -> tuple[str, ...]:
    return () if settings.entrypoint or under.entrypoint else (f"{about.image_prefix}/bin/python",)


def _history(config: ImageConfig) -> tuple[Mapping[str, Any], ...]:
    # Engines refuse a config without exactly one step per layer: replace a base's history that does not match.
    steps = tuple(step for step in config.history if not step.get("empty_layer"))
    count = len(config.diff_ids)
    return config.history if len(steps) == count else (*steps, *({"created_by": ""},) * count)[:count]


def _env(under: Sequence[str], image_prefix: str, own: Sequence[str]) -> tuple[str, ...]:
    values = dict(item.partition("=")[::2] for item in under)
    values["PATH"] = f"{image_prefix}/bin:{values.get('PATH', _PATH)}"
    values.update(dict(item.partition("=")[::2] for item in own))
    return tuple(f"{name}={value}" for name, value in values.items())


def _oci_typed(layer: Descriptor) -> Descriptor:
    # An OCI manifest uses OCI's media types for layers; Docker's stand for the same bytes.
    media_type = LAYER_GZIP if layer.media_type == DOCKER_LAYER_GZIP else layer.media_type
    return Descriptor(media_type, layer.digest, layer.size)


def _step(members: Sequence[str], settings: ImageSettings) -> dict[str, str]:
    return {"created": settings.created, "created_by": f"lamella: {', '.join(members)}"}


def _named(base: Base | None, settings: ImageSettings) -> dict[str, str]:
    about_it = {**settings.annotations, _CREATED: settings.created}
    if base:
        about_it |= {_BASE_NAME: base.name, _BASE_DIGEST: str(base.digest)}
    return about_it
