"""Load a pushed environment's runnable image into the local Docker engine, through its API.

The engine receives an archive as from `docker save`, its layers unpacked: engines before 23.0 do not
read zstd. Each layer is unpacked to an unnamed file first, since tar headers need sizes. Source: moby,
image/tarexport.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from typing import TYPE_CHECKING, Any, cast

from lamella.builder.errors import BuilderError
from lamella.layers.oci.documents import ImageConfig, Manifest, Platform, layers_of
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.progress.display import Silent
from lamella.layers.published import environment
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage
from lamella.layers.tar import headers
from lamella.layers.tar.decompress import DiffReader, decompressed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.layers.oci.documents import Layer
    from lamella.layers.oci.storage import ReadOnlyStorage
    from lamella.layers.progress.display import Progress

TASK = "load"

_CHUNK = 1 << 20
_MOST_EXPANDED = 1 << 40
"""Maximum unpacked bytes of a layer. The image is the user's own: a terabyte is an accident, not an attack."""


def load_image(
    reference: str,
    *,
    name: str = "",
    platform: Platform | None = None,
    trust: Trust = Trust(),
    progress: Progress | None = None,
) -> str:
    """Load the image of `reference` into the engine of DOCKER_HOST or the current context; return its name there.

    `name` defaults to the reference; for an OCI layout, to folder:tag. Raises `LayersError` for the
    reference, and `BuilderError` if no engine answers or the engine refuses the image.
    """
    place = Reference.parse(reference)
    name = name or _name(place)
    with contextlib.closing(open_storage(place, trust)) as storage:
        wanted = platform or Platform.here()
        found = environment.for_platform(environment.read_index(storage, place, trust, wanted), wanted)
        if not found.image:
            raise BuilderError(f"{reference}: no runnable image; push the environment again")
        manifest = Manifest.parse(fetch_document(storage, found.image))
        config = fetch_document(storage, manifest.config)
        layers = layers_of(manifest, ImageConfig.parse(config))
        progress = progress or Silent()
        progress.begin(TASK, sum(layer.descriptor.size for layer in layers), "B")
        _send(archive(storage, config, layers, name, progress))
        progress.end(TASK)
    return name


def archive(
    storage: ReadOnlyStorage, config: bytes, layers: tuple[Layer, ...], name: str, progress: Progress
) -> Iterator[bytes]:
    """Yield the archive that `docker save` would write of an image; every layer is verified at its end."""
    config_name = "config.json"
    names = [f"{layer.diff_id.hex}/layer.tar" for layer in layers]
    yield from _member(config_name, config)
    for layer_name, layer in zip(names, layers, strict=True):
        if layer_name not in names[: names.index(layer_name)]:
            yield from _layer(storage, layer, layer_name)
        progress.advance(TASK, layer.descriptor.size)
    content = [{"Config": config_name, "RepoTags": [name], "Layers": names}]
    yield from _member("manifest.json", json.dumps(content).encode())
    yield headers.END


def _member(name: str, content: bytes) -> Iterator[bytes]:
    yield headers.file_header(name.encode(), 0o644, len(content)) + content + headers.padding(len(content))


def _layer(storage: ReadOnlyStorage, layer: Layer, name: str) -> Iterator[bytes]:
    with tempfile.TemporaryFile() as plain:
        with storage.fetch(layer.descriptor) as stream:
            tar = DiffReader(decompressed(stream, layer.descriptor.media_type), layer.diff_id, _MOST_EXPANDED)
            while chunk := tar.read(_CHUNK):
                plain.write(chunk)
            tar.check()
        size = plain.tell()
        plain.seek(0)
        yield headers.file_header(name.encode(), 0o644, size)
        while chunk := plain.read(_CHUNK):
            yield chunk
        yield headers.padding(size)


def _send(content: Iterator[bytes]) -> None:
    import docker
    import requests

    try:
        client = docker.from_env(timeout=600)
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise BuilderError(f"no Docker engine answers: {_short(error)}; start it, or set DOCKER_HOST") from None
    try:
        with contextlib.closing(client):
            client.ping()
            # Not the SDK's `images.load`, which lists all images afterwards; this stream reports everything.
            for line in cast("Iterator[dict[str, Any]]", client.api.load_image(content)):
                if "error" in line:
                    raise BuilderError(f"the Docker engine refused the image: {str(line['error'])[:300]}")
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise BuilderError(f"the Docker engine closed the connection: {_short(error)}; try again") from None


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def _name(reference: Reference) -> str:
    tag = reference.tag or (reference.digest.short if reference.digest else "latest")
    if reference.is_layout:
        # Names in an engine are lower case.
        return f"{os.path.basename(os.path.abspath(reference.folder)).lower()}:{tag}"
    return f"{reference.registry}/{reference.repository}:{tag}"
