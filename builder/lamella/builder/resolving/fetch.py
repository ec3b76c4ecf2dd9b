"""Download what a resolution names: in parallel, checked against the index's hashes, kept in the cache.

Files of `$LAMELLA_CACHE/downloads`: `<sha256>/<filename>`. Each appears by rename, whole and checked. A file without a
known hash is keyed by its URL and checked by nothing but its size.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from lamella.builder.cache_folder import cannot_write
from lamella.builder.errors import BuilderError
from lamella.builder.indexes.client import IndexClient
from lamella.builder.resolving.file_lock import exclusive
from lamella.builder.resolving.sources import built_wheel, is_repository, is_source
from lamella.layers.hardening.permissions import make_folders
from lamella.layers.text import escaped, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from lamella.builder.errors import CacheError
    from lamella.builder.indexes.model import Indexes
    from lamella.builder.resolving.model import Artifact, Target
    from lamella.layers.progress.display import Progress
    from lamella.layers.registry.response import Response

TASK = "downloading packages"
_THREADS = 12
_BLOCK = 1 << 18
_MOST = 64 << 30
_UNUSED = 30 * 86400
"""Seconds after which a file that nothing asked for is dropped, by the next fetch that downloads one."""
_ASKED = 86400
"""A file's time of use is written at most once in so many seconds."""


def fetch(
    artifacts: Iterable[Artifact], target: Target, indexes: Indexes, cache_path: str, progress: Progress
) -> dict[Artifact, str]:
    """Return the path of each artifact's file in the cache; download the missing ones.

    For a repository or a source distribution that is the wheel that is built of it here, which has to be pure. A file is downloaded once, also by two processes at a time. An interrupted download leaves nothing. Raises
    `BuilderError` for an index that cannot be asked and for content with another hash, `CacheError` if the cache
    cannot be written. After the first failure nothing more is begun.
    """
    listed = tuple(dict.fromkeys(artifacts))
    wanted = [artifact for artifact in listed if not is_repository(artifact)]
    found = _downloaded(wanted, indexes, cache_path, progress)
    for artifact in listed:
        if is_source(artifact):
            found[artifact] = built_wheel(artifact, found.get(artifact, ""), target, cache_path)
    return found


def _downloaded(wanted: list[Artifact], indexes: Indexes, cache_path: str, progress: Progress) -> dict[Artifact, str]:
    folder = os.path.join(cache_path, "downloads")
    found = {artifact: path for artifact in wanted if (path := _cached(folder, artifact))}
    missing = [artifact for artifact in wanted if artifact not in found]
    if not missing:
        return found
    try:
        make_folders(folder)
    except OSError as error:
        raise _error(folder, error) from None
    _drop_unused(folder)
    known = sum(artifact.size for artifact in missing) if all(artifact.size for artifact in missing) else None
    progress.begin(TASK, known, "B")
    with IndexClient(indexes) as client, ThreadPoolExecutor(_THREADS) as pool:
        one = functools.partial(_one, folder, client, progress)
        # The largest first: they take the longest.
        ordered = sorted(missing, key=lambda artifact: -artifact.size)
        tasks = [pool.submit(one, artifact) for artifact in ordered]
        try:
            for artifact, task in zip(ordered, tasks, strict=True):
                found[artifact] = task.result()
        finally:
            for task in tasks:
                task.cancel()
    progress.end(TASK)
    return found


def filename_of(artifact: Artifact) -> str:
    """Name of the artifact's file. Raises `BuilderError` if its URL has none."""
    name = unquote(urlsplit(artifact.url).path.rpartition("/")[2])
    if not name or name.startswith(".") or "/" in name or "\\" in name or not name.isprintable():
        raise BuilderError(f"{_shown(artifact)}: its URL ends in no file name; report this to the index's operator")
    return name


def _key(artifact: Artifact) -> str:
    return artifact.sha256 or f"url-{hashlib.sha256(artifact.url.encode()).hexdigest()}"


def _cached(folder: str, artifact: Artifact) -> str:
    path = os.path.join(folder, _key(artifact), filename_of(artifact))
    try:
        seen = os.stat(path)
    except OSError:
        return ""
    if artifact.size and seen.st_size != artifact.size:
        return ""
    if time.time() - seen.st_mtime > _ASKED:
        with contextlib.suppress(OSError):
            os.utime(path)
    return path


def _one(folder: str, client: IndexClient, progress: Progress, artifact: Artifact) -> str:
    name, key = filename_of(artifact), _key(artifact)
    try:
        with exclusive(os.path.join(folder, f".{key[-40:]}.lock")):
            if found := _cached(folder, artifact):  # by another process meanwhile
                progress.advance(TASK, artifact.size)
                return found
            with _partial(folder) as (path, stream):
                _download(client, artifact, stream, progress)
                stream.close()
                os.makedirs(os.path.join(folder, key), exist_ok=True)
                place = os.path.join(folder, key, name)
                os.replace(path, place)
                return place
    except OSError as error:
        raise _error(folder, error) from None


@contextlib.contextmanager
def _partial(folder: str) -> Iterator[tuple[str, BinaryIO]]:
    descriptor, path = tempfile.mkstemp(prefix="partial-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield path, stream
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _download(client: IndexClient, artifact: Artifact, stream: BinaryIO, progress: Progress) -> None:
    if artifact.url.startswith("file://"):
        digest, length = _copied(artifact, stream)
    else:
        url = f"{artifact.url}?{artifact.query}" if artifact.query else artifact.url
        answer = client.get(url, _shown(artifact), functools.partial(_body, stream, artifact, progress))
        if answer is None:
            raise BuilderError(f"{_shown(artifact)}: no such file; its index names a file that it does not have")
        digest, length = answer
    if artifact.sha256 and digest != artifact.sha256:
        raise BuilderError(
            f"{_shown(artifact)}: sha256 is {digest}, but the index states {artifact.sha256}; nothing was used, report "
            "this to the index's operator"
        )
    if artifact.size and length != artifact.size:
        raise BuilderError(f"{_shown(artifact)}: {size(length)}, but the index states {size(artifact.size)}")


def _body(stream: BinaryIO, artifact: Artifact, progress: Progress, response: Response) -> tuple[str, int]:
    if response.content_type == "text/html":
        response.close()
        raise BuilderError(f"{_shown(artifact)}: a web page came in its place; check for a proxy in between")
    # A retry begins anew.
    stream.seek(0)
    stream.truncate()
    hashed, length = hashlib.sha256(), 0
    most = artifact.size or _MOST
    while block := response.read(_BLOCK):
        length += len(block)
        if length > most:
            raise BuilderError(f"{_shown(artifact)}: larger than the index states, {size(most)}; nothing was used")
        hashed.update(block)
        stream.write(block)
        progress.advance(TASK, len(block))
    return hashed.hexdigest(), length


def _copied(artifact: Artifact, stream: BinaryIO) -> tuple[str, int]:
    hashed, length = hashlib.sha256(), 0
    try:
        with open(url2pathname(urlsplit(artifact.url).path), "rb") as source:
            while block := source.read(_BLOCK):
                hashed.update(block)
                length += stream.write(block)
    except FileNotFoundError as error:
        raise BuilderError(f"{_shown(artifact)}: {error.strerror}; correct the index") from None
    return hashed.hexdigest(), length


def _shown(artifact: Artifact) -> str:
    place = f"index {artifact.index}" if artifact.index else "URL"
    return f"{place}: {escaped(artifact.name, 100)} {escaped(artifact.version, 60)} ({_host(artifact.url)})"


def _host(url: str) -> str:
    parts = urlsplit(url)
    return parts.hostname or url2pathname(parts.path)


def _drop_unused(folder: str) -> None:
    before = time.time() - _UNUSED
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            if name.startswith("partial-") and os.stat(path).st_mtime < before:
                os.unlink(path)
            elif os.path.isdir(path) and all(used < before for used in _times(path)):
                shutil.rmtree(path, ignore_errors=True)


def _times(folder: str) -> list[float]:
    with os.scandir(folder) as items:
        return [item.stat().st_mtime for item in items]


def _error(folder: str, error: OSError) -> CacheError:
    return cannot_write(folder, "the cache of downloads", error)
