"""Published environments made by hand: layers of a few files each, in an OCI layout, as a push would leave them."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

from lamella.layers.layout import OciLayout
from lamella.layers.oci.annotations import (
    CPU,
    DOCKER_REFERENCE_TYPE,
    DRIVERS,
    GLIBC,
    IMAGE,
    PACKAGE,
    PREFIX,
    PYTHON,
    UNPACKED,
)
from lamella.layers.oci.documents import (
    CONFIG,
    INDEX,
    LAYER_TAR,
    MANIFEST,
    UNKNOWN_PLATFORM,
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    Manifest,
    Platform,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Files = Mapping[str, str | bytes]


def publish(
    layout: Path,
    layers: Sequence[Files],
    *,
    prefix: str = "/opt/env",
    platform: Platform | None = None,
    glibc: str = "",
    cpu: str = "",
    drivers: str = "",
    tag: str = "latest",
) -> str:
    """Writes one layer for each of `layers` (see `archive`) to `layout`; gives the reference, pinned by digest."""
    storage = OciLayout(str(layout), create=True)
    descriptors, diff_ids = [], []
    for number, files in enumerate(layers):
        blob = archive(files, prefix)
        size = sum(len(content) for content in files.values())
        descriptor = Descriptor.of(LAYER_TAR, blob, {PACKAGE: f"p{number}", UNPACKED: str(size)})
        _push(storage, descriptor, blob)
        descriptors.append(descriptor)
        diff_ids.append(Digest.of(blob))
    config = ImageConfig(platform or Platform.here(), tuple(diff_ids)).to_json()
    configured = Descriptor.of(CONFIG, config)
    _push(storage, configured, config)
    needs = {GLIBC: glibc, CPU: cpu, DRIVERS: drivers}
    annotations = {PREFIX: prefix, PYTHON: "3.12.0"} | {name: value for name, value in needs.items() if value}
    manifest = Manifest(configured, tuple(descriptors), annotations).to_json()
    listed = Descriptor.of(MANIFEST, manifest)
    _push(storage, listed, manifest)
    marks = {IMAGE: str(Digest.of(b"no image")), DOCKER_REFERENCE_TYPE: "attestation-manifest"}
    index = Index(
        (Descriptor(MANIFEST, listed.digest, listed.size, marks, platform=UNKNOWN_PLATFORM),),
    ).to_json()
    _push(storage, Descriptor.of(INDEX, index), index, tag)
    return f"oci:{layout}:{tag}@{Digest.of(index)}"


def archive(files: Files, prefix: str) -> bytes:
    """A layer's tar: `files` below the image prefix; `*` and `->` as in `support.trees.write`."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        folders: set[str] = set()
        for name, content in sorted(files.items()):
            path = f"{prefix[1:]}/{name.rstrip('*')}"
            parts = path.split("/")
            for depth in range(1, len(parts)):
                folder = "/".join(parts[:depth])
                if folder not in folders:
                    folders.add(folder)
                    entry = tarfile.TarInfo(folder)
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
            entry = tarfile.TarInfo(path)
            if isinstance(content, str) and content.startswith("->"):
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, content[2:], 0o777
                tar.addfile(entry)
                continue
            data = content.encode() if isinstance(content, str) else content
            entry.size, entry.mode = len(data), 0o755 if name.endswith("*") else 0o644
            tar.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def _push(storage: OciLayout, descriptor: Descriptor, content: bytes, tag: str = "") -> None:
    storage.push(descriptor, lambda: io.BytesIO(content), tag=tag)
