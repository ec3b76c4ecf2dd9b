"""The nouns of the OCI image specification, as frozen values.

`to_json` gives canonical bytes (sorted keys, no spaces), so that equal values have equal digests; `parse` accepts
any valid document and refuses what could be read in two ways. Source: image-spec v1.1, descriptor.md, manifest.md,
image-index.md, config.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lamella.layers.errors import InvalidContent
from lamella.layers.oci.parsing import (
    annotations_of,
    fields,
    list_of,
    media_type_of,
    parse_object,
    shallow,
    text_of,
    texts_of,
)
from lamella.layers.oci.values import bounded_int
from lamella.layers.text import escaped, size

if TYPE_CHECKING:
    from collections.abc import Mapping

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

MANIFEST_TYPES = frozenset({MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({INDEX, DOCKER_INDEX})

MAX_DOCUMENT = 4 << 20
"""Bytes that a manifest, index or config may have: Harbor and distribution refuse larger manifests."""

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """`algorithm:hex`, validated, so that it can be a file's name. Source: descriptor.md, "Digests"."""

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        if len(self.hex) != _HEX_LENGTH.get(self.algorithm) or not _HEX.fullmatch(self.hex):
            raise InvalidContent(
                f"{escaped(f'{self.algorithm}:{self.hex}', 100)}: not a digest; write sha256: or sha512: and lower-case hex"
            )

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    def __hash__(self) -> int:
        # Of a hash, a part says it all: sets of hundreds of layers are made for every mount.
        return hash(self.hex)

    @property
    def short(self) -> str:
        """The first 12 characters of the hex, for people."""
        return self.hex[:12]

    @classmethod
    def parse(cls, text: object) -> Digest:
        """Return `text` as a digest, or raise `InvalidContent`."""
        if not isinstance(text, str):
            raise InvalidContent("a digest is missing or not a string such as sha256:…")
        algorithm, _, value = text.partition(":")
        return cls(algorithm, value)

    @classmethod
    def of(cls, content: bytes) -> Digest:
        """The sha256 digest of `content`."""
        return cls("sha256", hashlib.sha256(content).hexdigest())


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on: Go's names for systems and architectures. Source: image-index.md."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """`linux/amd64` or `linux/arm/v7` as a platform."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise InvalidContent(f"{escaped(text, 100)}: not a platform; write os/architecture, such as linux/amd64")
        return cls(*parts)

    @classmethod
    def here(cls) -> Platform:
        """This machine's."""
        if hasattr(os, "uname"):
            machine = os.uname().machine.lower()
        else:  # Windows. Elsewhere this import would be a twentieth of `lamella run`.
            import platform

            machine = platform.machine().lower()
        names = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
        system = "windows" if sys.platform == "win32" else sys.platform
        return cls(system, names.get(machine, machine), "v7" if machine == "armv7l" else "")

    def to_value(self) -> dict[str, str]:
        """The document's `platform` object."""
        value = {"architecture": self.architecture, "os": self.os}
        return value | {"variant": self.variant} if self.variant else value


UNKNOWN_PLATFORM = Platform("unknown", "unknown")
"""What engines skip in an index; build attestations and package manifests are marked so."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Names content by type, digest and size in bytes. Source: descriptor.md."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    artifact_type: str = ""

    def to_value(self) -> dict[str, Any]:
        """The document's descriptor object."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.platform:
            value["platform"] = self.platform.to_value()
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        return value

    @classmethod
    def of(cls, media_type: str, content: bytes, annotations: Mapping[str, str] | None = None) -> Descriptor:
        """The descriptor of `content`."""
        return cls(media_type, Digest.of(content), len(content), annotations or {})

    @classmethod
    def from_value(cls, value: object) -> Descriptor:
        """A parsed JSON object as a descriptor; `InvalidContent` names the field that is wrong."""
        document = fields(value, "a descriptor")
        size = bounded_int(document.get("size"))
        if size is None:
            raise InvalidContent("a descriptor's size is not a whole number of bytes from 0 to 2**63 - 1")
        if document.get("urls"):
            raise InvalidContent("a descriptor has 'urls': foreign layers are not fetched from elsewhere")
        platform = document.get("platform")
        return cls(
            media_type_of(document),
            Digest.parse(document.get("digest")),
            size,
            annotations_of(document),
            None if platform is None else _platform_from(platform),
            text_of(document, "artifactType", ""),
        )


@dataclass(frozen=True, slots=True)
class Layer:
    """A blob and the digest of the tar in it. `diff_id` names the unpacked tar, `descriptor.digest` the blob that moves."""

    descriptor: Descriptor
    diff_id: Digest


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest. Source: manifest.md."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    media_type: str = MANIFEST
    artifact_type: str = ""
    subject: Descriptor | None = None

    def to_json(self) -> bytes:
        """Canonical bytes; their digest is the manifest's name."""
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_value(),
            "layers": [layer.to_value() for layer in self.layers],
        }
        return canonical_json(value | _optional(self))

    @classmethod
    def parse(cls, content: bytes) -> Manifest:
        """The bytes of an image manifest as a value, or raise `InvalidContent`."""
        document = _document(content, "an image manifest")
        # A document that is a manifest and an index at once is how two readers are made to see two images.
        if "manifests" in document or "fsLayers" in document:
            raise InvalidContent("the image manifest is also an index or of schema 1: refused as ambiguous")
        subject = document.get("subject")
        media_type = media_type_of(document, MANIFEST)
        if media_type not in MANIFEST_TYPES:
            raise InvalidContent(f"an image manifest has the media type {media_type}")
        return cls(
            Descriptor.from_value(document.get("config")),
            tuple(Descriptor.from_value(layer) for layer in list_of(document, "layers")),
            annotations_of(document),
            media_type,
            text_of(document, "artifactType", ""),
            None if subject is None else Descriptor.from_value(subject),
        )


@dataclass(frozen=True, slots=True)
class Index:
    """An image index. Source: image-index.md."""

    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    media_type: str = INDEX
    artifact_type: str = ""
    subject: Descriptor | None = None

    def to_json(self) -> bytes:
        """Canonical bytes; their digest is the index's name."""
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [manifest.to_value() for manifest in self.manifests],
        }
        return canonical_json(value | _optional(self))

    @classmethod
    def parse(cls, content: bytes) -> Index:
        """The bytes of an image index as a value, or raise `InvalidContent`."""
        document = _document(content, "an image index")
        if "layers" in document or "config" in document or "fsLayers" in document:
            raise InvalidContent("the image index is also a manifest: refused as ambiguous")
        subject = document.get("subject")
        media_type = media_type_of(document, INDEX)
        if media_type not in INDEX_TYPES:
            raise InvalidContent(f"an image index has the media type {media_type}")
        return cls(
            tuple(Descriptor.from_value(manifest) for manifest in list_of(document, "manifests")),
            annotations_of(document),
            media_type,
            text_of(document, "artifactType", ""),
            None if subject is None else Descriptor.from_value(subject),
        )


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image runs as, and the diff_ids of its layers in order. Source: config.md."""

    platform: Platform
    diff_ids: tuple[Digest, ...]
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    history: tuple[Mapping[str, Any], ...] = ()
    """One object for each layer in their order, and others in between that say `empty_layer`, as `docker history` shows."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else it runs with, as it is: ExposedPorts, Volumes, StopSignal, Healthcheck, Shell and the like."""
    described: Mapping[str, Any] = field(default_factory=dict)
    """`author`, `os.version` and `os.features`, as they are."""

    def to_json(self) -> bytes:
        """Canonical bytes."""
        run: dict[str, Any] = dict(self.more)
        if self.env:
            run["Env"] = list(self.env)
        if self.entrypoint:
            run["Entrypoint"] = list(self.entrypoint)
        if self.cmd:
            run["Cmd"] = list(self.cmd)
        if self.working_dir:
            run["WorkingDir"] = self.working_dir
        if self.user:
            run["User"] = self.user
        if self.labels:
            run["Labels"] = dict(self.labels)
        value: dict[str, Any] = (
            dict(self.described)
            | self.platform.to_value()
            | {
                "config": run,
                "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for diff_id in self.diff_ids]},
            }
        )
        if self.created:
            value["created"] = self.created
        if self.history:
            value["history"] = [dict(entry) for entry in self.history]
        return canonical_json(value)

    @classmethod
    def parse(cls, content: bytes) -> ImageConfig:
        """The bytes of an image configuration as a value, or raise `InvalidContent`."""
        document = _document(content, "an image configuration")
        run = fields(document.get("config") or {}, "the image configuration's config")
        rootfs = fields(document.get("rootfs"), "the image configuration's rootfs")
        history = document.get("history") or []
        if not isinstance(history, list):
            raise InvalidContent("an image configuration's history is not a list")
        return cls(
            Platform(text_of(document, "os"), text_of(document, "architecture"), text_of(document, "variant", "")),
            tuple(Digest.parse(item) for item in list_of(rootfs, "diff_ids")),
            texts_of(run, "Env"),
            texts_of(run, "Entrypoint"),
            texts_of(run, "Cmd"),
            text_of(run, "WorkingDir", ""),
            text_of(run, "User", ""),
            annotations_of(run, "Labels"),
            text_of(document, "created", ""),
            tuple(shallow(fields(item, "a history entry"), "a history entry") for item in history),
            _kept({name: value for name, value in run.items() if name not in _RUN}),
            _kept({name: document.get(name) for name in _DESCRIBED}),
        )


_RUN = frozenset({"Env", "Entrypoint", "Cmd", "WorkingDir", "User", "Labels"})
"""What `ImageConfig` has fields for, of a configuration's `config`."""
_DESCRIBED = ("author", "os.version", "os.features")


def _kept(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: shallow(value, f"{escaped(name, 40)} of an image configuration")
        for name, value in values.items()
        if value is not None
    }


def _optional(document: Manifest | Index) -> dict[str, Any]:
    """What manifests and indexes may have besides."""
    value: dict[str, Any] = {}
    if document.artifact_type:
        value["artifactType"] = document.artifact_type
    if document.subject:
        value["subject"] = document.subject.to_value()
    if document.annotations:
        value["annotations"] = dict(document.annotations)
    return value


def layers_of(manifest: Manifest, config: ImageConfig) -> tuple[Layer, ...]:
    """A manifest's layers with their diff_ids; `InvalidContent` if the two disagree on how many there are."""
    if len(manifest.layers) != len(config.diff_ids):
        raise InvalidContent(f"the manifest has {len(manifest.layers)} layers and its config {len(config.diff_ids)}")
    return tuple(
        Layer(descriptor, diff_id) for descriptor, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
    )


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """`value` as JSON that is the same on every machine: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _document(content: bytes, what: str) -> dict[str, Any]:
    if len(content) > MAX_DOCUMENT:
        raise InvalidContent(f"{what} of {len(content):,} bytes is larger than {size(MAX_DOCUMENT)}")
    return parse_object(content, what)


def _platform_from(value: object) -> Platform:
    document = fields(value, "a platform")
    return Platform(
        text_of(document, "os", "unknown"),
        text_of(document, "architecture", "unknown"),
        text_of(document, "variant", ""),
    )
