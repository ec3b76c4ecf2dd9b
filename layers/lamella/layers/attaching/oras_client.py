"""`oras` as the maker and reader of artifacts, over this package's storages.

oras composes a manifest of files and names the files of one; every byte goes through a `Storage`, which has its own
connections, credentials, retries and digest checks. Put right here, seen with oras 0.2.43: a manifest has no
`artifactType`, and no list under the tag schema for registries without the referrers API; a blob's digest is not checked;
a config has no media type that registries know; a file has the media type of a layer; folders are unpacked through links.
This module alone imports oras, which takes a third of a second.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import oras.oci
import oras.provider

from lamella.layers.attaching.listing import files_of
from lamella.layers.errors import LayersError
from lamella.layers.oci import referrers
from lamella.layers.oci.annotations import TITLE
from lamella.layers.oci.documents import EMPTY, MANIFEST, Descriptor, Digest, Manifest
from lamella.layers.oci.storage import save

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lamella.layers.oci.storage import ReadOnlyStorage, Storage

_TARGET = "localhost/artifact:latest"
"""A name that oras can parse. The storage has the real one."""
_BYTES = "application/octet-stream"
_MEDIA_TYPES = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".ipynb": "application/x-ipynb+json",
    ".json": "application/json",
    ".md": "text/markdown",
    ".pdf": "application/pdf",
    ".toml": "application/toml",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
"""By suffix. Python's own table differs between versions and machines, and the artifact's digest with it."""


def push(
    storage: Storage,
    subject: Descriptor,
    files: Sequence[str],
    artifact_type: str,
    annotations: Mapping[str, str],
    *,
    dry_run: bool = False,
) -> Descriptor:
    """Push `files` as an artifact attached to `subject`, and return its manifest's descriptor. Idempotent."""
    client = _Client(storage, subject, artifact_type, writes=not dry_run)
    client.push(
        _TARGET,
        files=list(files),
        disable_path_validation=True,
        manifest_annotations=dict(annotations),
        subject=oras.oci.Subject(subject.media_type, str(subject.digest), subject.size),
        quiet=True,
    )
    return client.pushed


def pull(storage: ReadOnlyStorage, manifest: Manifest, folder: str, advance: Callable[[int], None]) -> None:
    """Write the files of `manifest`, whose names are checked, to `folder`, which must be empty."""
    _Puller(storage, manifest, advance).pull(_TARGET, outdir=folder)


class _Done(NamedTuple):
    """As much of a response as oras looks at."""

    status_code: int = 201


class _NoCredentials:
    """oras would read Docker's configuration: the storage has its own credentials."""

    def load_configs(self, *_: object, **__: object) -> None:
        """Read nothing."""


class _Registry(oras.provider.Registry):  # type: ignore[misc] # oras ships no types
    """An oras client that can't make a request."""

    def __init__(self) -> None:
        super().__init__()
        self.auth = _NoCredentials()

    def do_request(self, url: str, *_: object, **__: object) -> Any:
        """Refuse: all that `push` and `pull` need is overridden below."""
        raise LayersError(f"oras asked for {url} by itself; install oras 0.2.43")


class _Client(_Registry):
    def __init__(self, storage: Storage, subject: Descriptor, artifact_type: str, *, writes: bool) -> None:
        super().__init__()
        self._storage = storage
        self._subject = subject
        self._type = artifact_type
        self._writes = writes

    def upload_blob(self, blob: str, _container: object, layer: dict[str, Any], **_: object) -> _Done:
        """Push one file, or the empty config, unless it is there."""
        if TITLE in layer.get("annotations", {}):
            layer["mediaType"] = _MEDIA_TYPES.get(os.path.splitext(blob)[1].lower(), _BYTES)
        descriptor = Descriptor.from_value(layer)
        if self._writes and not self._storage.exists(descriptor):
            self._storage.push(descriptor, lambda: open(blob, "rb"))  # noqa: SIM115 - closed by `push`
        return _Done()

    def upload_manifest(self, manifest: dict[str, Any], _container: object) -> _Done:
        """Attach the manifest that oras composed."""
        made = Manifest(
            Descriptor.of(EMPTY, b"{}"),
            tuple(Descriptor.from_value(layer) for layer in manifest["layers"]),
            manifest.get("annotations") or {},
            MANIFEST,
            self._type,
        )
        if self._writes:
            self.pushed = referrers.attach_manifest(self._storage, self._subject, made)
        else:
            self.pushed = Descriptor.of(MANIFEST, referrers.referring(made, self._subject).to_json())
        return _Done()


class _Puller(_Registry):
    def __init__(self, storage: ReadOnlyStorage, manifest: Manifest, advance: Callable[[int], None]) -> None:
        super().__init__()
        self._storage = storage
        self._manifest = manifest
        self._advance = advance

    def get_manifest(self, *_: object, **__: object) -> dict[str, Any]:
        """The manifest, as it was read and checked."""
        layers = [
            # oras unpacks archives of layers' types: written as they are, they can't name a file elsewhere.
            {"mediaType": _BYTES, "digest": str(file.digest), "annotations": {TITLE: file.name}}
            for file in files_of(self._manifest)
        ]
        return {"layers": layers}

    def download_blob(self, _container: object, digest: str, outfile: str) -> str:
        """Write one file, with its size and digest checked."""
        wanted = Digest.parse(digest)
        descriptor = next(layer for layer in self._manifest.layers if layer.digest == wanted)
        os.makedirs(os.path.dirname(outfile), exist_ok=True)
        save(self._storage, descriptor, outfile, self._advance)
        return outfile
