"""An OCI layout with one image of one layer for each platform, the same bytes from the same files."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamella.layers.oci.documents import CONFIG, INDEX, LAYER_TAR, MANIFEST, canonical_json
from lamella.layers.tar.headers import MTIME

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_CREATED = "1980-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class BaseImage:
    """The image for one architecture, in the words of GOARCH."""

    architecture: str
    files: Mapping[str, bytes | str]
    """A file's content, or a link's target as text, by path."""
    run: Mapping[str, Any]
    """The config's `config`."""


def write(layout: Path, tag: str, images: tuple[BaseImage, ...], compression: str) -> None:
    """Write the images as one tag of a new layout."""
    (layout / "blobs/sha256").mkdir(parents=True)
    manifests = [_image(layout, image, compression) for image in images]
    index = _put(layout, INDEX, canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}))
    entry = {**index, "annotations": {"org.opencontainers.image.ref.name": tag}}
    (layout / "index.json").write_bytes(canonical_json({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_bytes(canonical_json({"imageLayoutVersion": "1.0.0"}))


def _image(layout: Path, image: BaseImage, compression: str) -> dict[str, Any]:
    tar = _tar(image.files)
    layer = _put(layout, f"{LAYER_TAR}+{compression}", _compressed(tar, compression))
    platform = {"architecture": image.architecture, "os": "linux"}
    config = platform | {
        "config": image.run,
        "created": _CREATED,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
        "history": [{"created": _CREATED, "created_by": "lamella: C library and certificates"}],
    }
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": _put(layout, CONFIG, canonical_json(config))}
    return {**_put(layout, MANIFEST, canonical_json(manifest | {"layers": [layer]})), "platform": platform}


def _tar(files: Mapping[str, bytes | str]) -> bytes:
    folders = {
        "/".join(parts[:depth]) for name in files if (parts := name.split("/")) for depth in range(1, len(parts))
    }
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted({*files, *folders, "tmp"}):
            entry = tarfile.TarInfo(name)
            entry.mtime = MTIME
            found = files.get(name)
            if found is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
                archive.addfile(entry)
            elif isinstance(found, str):
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, found, 0o777
                archive.addfile(entry)
            else:
                entry.size, entry.mode = len(found), 0o755 if ".so" in name else 0o644
                archive.addfile(entry, io.BytesIO(found))
    return content.getvalue()


def _compressed(tar: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(tar, 9, mtime=0)
    import zstandard

    return zstandard.ZstdCompressor(level=9).compress(tar)


def _put(layout: Path, media_type: str, content: bytes) -> dict[str, Any]:
    """Write a blob; return its descriptor."""
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}
