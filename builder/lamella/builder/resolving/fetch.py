"""Download what a resolution names: in parallel, checked against the index's hashes, kept in the cache.

Files of `$LAMELLA_CACHE/downloads`: `<sha256>/<filename>`. Each appears by rename, whole and checked. For a file without a
known hash, its server is asked each time whether it changed: `url-<hash of the URL>/known.json` has its digest, and the
headers to ask with.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from lamella.builder.cache_folder import cannot_write
from lamella.builder.errors import BuilderError
from lamella.builder.files.small_file import read_json
from lamella.builder.indexes.client import IndexClient
from lamella.builder.resolving.file_lock import exclusive
from lamella.builder.resolving.sources import built_wheel, is_repository, is_source
from lamella.layers.hardening.permissions import make_folders
from lamella.layers.text import escaped, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import BinaryIO

    from lamella.builder.errors import CacheError
    from lamella.builder.indexes.model import Indexes
    from lamella.builder.resolving.model import Artifact, Target
    from lamella.layers.progress.display import Progress
    from lamella.layers.registry.response import Response

TASK = "downloading packages"
_KNOWN = "known.json"
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
    total = sum(artifact.size for artifact in missing) if all(artifact.size for artifact in missing) else None
    progress.begin(TASK, total, "B")
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


def _cached(folder: str, artifact: Artifact, sha256: str = "") -> str:
    """Path of the file of `artifact` with its own digest, or with `sha256` if it has none; empty if it is not there."""
    if not (artifact.sha256 or sha256):
        return ""
    path = os.path.join(folder, artifact.sha256 or sha256, filename_of(artifact))
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


@dataclass(frozen=True, slots=True)
class _Known:
    """An earlier download of a file without a known hash."""

    sha256: str = ""
    unless: Mapping[str, str] = field(default_factory=dict)
    """Headers by which its server answers whether it changed."""


def _known(folder: str, artifact: Artifact) -> _Known:
    try:
        value = read_json(os.path.join(folder, _key(artifact), _KNOWN))
        return _Known(str(value["sha256"]), {name: str(value["unless"][name]) for name in value["unless"]})
    except (OSError, ValueError, KeyError, TypeError):
        return _Known()


def _remember(folder: str, artifact: Artifact, known: _Known) -> None:
    os.makedirs(os.path.join(folder, _key(artifact)), exist_ok=True)
    with _partial(folder) as (path, stream):
        stream.write(json.dumps({"sha256": known.sha256, "unless": dict(known.unless)}).encode())
        stream.close()
        os.replace(path, os.path.join(folder, _key(artifact), _KNOWN))


def digest_of(artifact: Artifact, cache_path: str) -> str:
    """sha256 of the fetched file of `artifact`, stated or computed; empty for a repository."""
    return artifact.sha256 or _known(os.path.join(cache_path, "downloads"), artifact).sha256


def _one(folder: str, client: IndexClient, progress: Progress, artifact: Artifact) -> str:
    name, key = filename_of(artifact), _key(artifact)
    try:
        with exclusive(os.path.join(folder, f".{key[-40:]}.lock")):
            if found := _cached(folder, artifact):  # by another process meanwhile
                progress.advance(TASK, artifact.size)
                return found
            earlier = _Known() if artifact.sha256 else _known(folder, artifact)
            there = _cached(folder, artifact, earlier.sha256)
            with _partial(folder) as (path, stream):
                known = _download(client, artifact, stream, progress, earlier.unless if there else {})
                if known is None:
                    return there
                stream.close()
                place = os.path.join(folder, known.sha256, name)
                os.makedirs(os.path.dirname(place), exist_ok=True)
                os.replace(path, place)
            if not artifact.sha256:
                _remember(folder, artifact, known)
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


def _download(
    client: IndexClient, artifact: Artifact, stream: BinaryIO, progress: Progress, unless: Mapping[str, str]
) -> _Known | None:
    """Write the file to `stream`; None if it did not change, by the headers `unless`."""
    if artifact.url.startswith("file://"):
        digest, length = _copied(artifact, stream)
        headers: Mapping[str, str] = {}
    else:
        url = f"{artifact.url}?{artifact.query}" if artifact.query else artifact.url
        read = functools.partial(_body, stream, artifact, progress)
        answer = client.get(url, _shown(artifact), read, index=artifact.index, unless=unless)
        if answer is None:
            raise BuilderError(f"{_shown(artifact)}: no such file; {_lost(artifact)}")
        digest, length, headers = answer
        if not digest:
            return None
    if artifact.sha256 and digest != artifact.sha256:
        raise BuilderError(f"{_shown(artifact)}: sha256 is {digest}, but {_mismatch(artifact)}")
    if artifact.size and length != artifact.size:
        raise BuilderError(f"{_shown(artifact)}: {size(length)}, but the index states {size(artifact.size)}")
    return _Known(digest, headers)


def _mismatch(artifact: Artifact) -> str:
    if artifact.index:
        return f"the index or a lock states {artifact.sha256}; nothing was used, report this to the index's operator"
    return f"the file that was installed had {artifact.sha256}; nothing was used, install it again"


def _lost(artifact: Artifact) -> str:
    return "its index names a file that it does not have" if artifact.index else "install it from another URL"


def _body(
    stream: BinaryIO, artifact: Artifact, progress: Progress, response: Response
) -> tuple[str, int, Mapping[str, str]]:
    """Digest and length of the file, and headers to ask with later; an empty digest if it did not change."""
    if response.status == 304:
        return "", 0, {}
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
    pairs = (("If-None-Match", response.header("ETag")), ("If-Modified-Since", response.header("Last-Modified")))
    return hashed.hexdigest(), length, dict([pair for pair in pairs if pair[1]][:1])


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
