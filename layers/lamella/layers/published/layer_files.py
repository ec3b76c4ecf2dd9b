"""The files of published layers, without unpacking them: from the store if a layer is there, else from its blob's stream."""

from __future__ import annotations

import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamella.layers.errors import FalseMirror, InvalidContent, NotFound, StoreError, UnsafeLayer
from lamella.layers.oci.documents import Platform
from lamella.layers.oci.reference import Reference
from lamella.layers.progress.display import Progress, Silent
from lamella.layers.published.environment import for_platform, read_index
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage
from lamella.layers.store import leases
from lamella.layers.store.store import Store
from lamella.layers.tar.decompress import DiffReader, decompressed, expansion_limit
from lamella.layers.tar.reader import Archive
from lamella.layers.text import counted, escaped, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lamella.layers.oci.storage import Fetcher, Reader
    from lamella.layers.published.environment import PublishedIndex
    from lamella.layers.published.package import PublishedPackage
    from lamella.layers.tar.reader import Entry

_TASK = "read"
_THREADS = 4
_PIECE = 1 << 20
_LISTS = ".lamella/relocate/"
"""Lists of the files that hold the image prefix, which are a layer's first entries."""
_MAX_LIST = 4 << 20
_MAX_NEUTRAL = 16 << 20
"""Bytes of a file whose prefix is left out of its `neutral` digest; it is read into memory."""


@dataclass(frozen=True, slots=True)
class LayerFile:
    """A file or link of a layer. Folders follow from the paths."""

    path: str
    """Relative to the image prefix; bytes that are not UTF-8 do not occur."""
    size: int
    executable: bool
    link: str | None = None
    """The target of a symlink, or of a hard link relative to the image prefix; None for a file with content."""
    digest: str = ""
    """sha256 of its bytes, 64 hex digits; empty for a link, or if digests were not asked for."""
    neutral: str = ""
    """The digest with the image prefix left out, for a file that holds it; else empty."""


@dataclass(frozen=True, slots=True)
class LayerFiles:
    """One package with the files of its layer."""

    package: PublishedPackage
    files: tuple[LayerFile, ...]
    """In the layer's order, by path."""
    is_stored: bool
    """Whether they were read from the store, without a request."""
    magic: str = ""
    """The magic number of its byte code, 8 hex digits; empty without byte code, or if digests were not asked for."""

    def __repr__(self) -> str:
        total = size(sum(file.size for file in self.files))
        return f"<LayerFiles {self.package.name} {self.package.version}: {counted(len(self.files), 'file')}, {total}>"


@dataclass(slots=True)
class _Listing:
    """The files of one layer while it is read."""

    prefix: str
    digests: bool
    files: list[LayerFile] = field(default_factory=list)
    holds: dict[str, str] = field(default_factory=dict)
    """How files hold the prefix, `text` or `binary`, by path."""
    magic: str = ""

    def add(self, entry: Entry, content: Iterable[bytes | memoryview]) -> None:
        """Add an entry; `content` is only read for digests."""
        below = f"{self.prefix.strip('/')}/"
        path = entry.path.decode()
        if entry.kind == "folder" or not path.startswith(below):
            return
        inner = path[len(below) :]
        if entry.kind == "file":
            digest, neutral = self._digests(inner, entry.size, content) if self.digests else ("", "")
            self.files.append(LayerFile(inner, entry.size, entry.executable, None, digest, neutral))
        else:
            link = entry.link.decode("utf-8", "backslashreplace")
            link = link.removeprefix(below) if entry.kind == "hardlink" else link
            self.files.append(LayerFile(inner, 0, executable=False, link=link))

    def _digests(self, path: str, count: int, content: Iterable[bytes | memoryview]) -> tuple[str, str]:
        kind = self.holds.get(path, "") if count <= _MAX_NEUTRAL else ""
        is_list = path.startswith(_LISTS) and count <= _MAX_LIST
        whole = hashlib.sha256()
        kept = bytearray()
        first = b""
        for piece in content:
            whole.update(piece)
            first = first or bytes(piece[:4])
            if kind or is_list:
                kept += piece
        if path.endswith(".pyc"):
            self.magic = first.hex()
        if is_list:
            self._remember(bytes(kept))
        if not kind:
            return whole.hexdigest(), ""
        bare = bytes(kept).replace(os.fsencode(self.prefix), b"")
        # A prefix in a binary has NULs in place of the bytes that it is shorter than another one.
        bare = bare.replace(b"\0", b"") if kind == "binary" else bare
        return whole.hexdigest(), hashlib.sha256(bare).hexdigest()

    def _remember(self, content: bytes) -> None:
        try:
            for item in json.loads(content)["files"]:
                self.holds[str(item["path"])] = str(item["kind"])
        except (ValueError, RecursionError, LookupError, TypeError):
            return  # a publisher's mistake, which concerns relocation alone


def layer_files(
    reference: str,
    package: str = "",
    *,
    digests: bool = False,
    platform: Platform | None = None,
    store: Store | None = None,
    trust: Trust = Trust(),
    progress: Progress | None = None,
) -> tuple[LayerFiles, ...]:
    """List the files of the layers of `reference`, or of the layers of one `package`.

    Reads the blobs of the layers that `store` (default: the user's) lacks, up to four at once, and keeps nothing of them.
    `digests`: hash each file as well. `platform`: by default this machine's, or the only one. Raises `NotFound` without
    such a package, `UnsafeLayer` and `InvalidContent` for a layer that a pull refuses too, and what `inspect` raises.
    """
    parsed = Reference.parse(reference)
    with closing(open_storage(parsed, trust)) as storage:
        index = read_index(storage, parsed, trust, platform)
        environment = for_platform(index, platform or _default(index))
        packages = named(environment.packages, package, str(index.reference))
        return read_layers(storage, packages, environment.prefix, digests=digests, store=store, progress=progress)


def read_layers(
    fetcher: Fetcher,
    packages: Sequence[PublishedPackage],
    prefix: str,
    *,
    digests: bool = False,
    store: Store | None = None,
    progress: Progress | None = None,
) -> tuple[LayerFiles, ...]:
    """List the files of these layers of an environment with the image prefix `prefix`; see `layer_files`."""
    bars = progress or Silent()
    local = store or _own_store()
    missing = [each for each in packages if not local or not local.has(each.layer.diff_id)]
    if missing:
        bars.begin(_TASK, sum(each.size for each in missing), "B")

    def read(each: PublishedPackage) -> LayerFiles:
        listing = _Listing(prefix, digests)
        try:
            is_stored = bool(local and _read_stored(local, each, listing))
            while not is_stored:
                listing = _Listing(prefix, digests)
                try:
                    _read_blob(fetcher, each, listing, lambda count: bars.advance(_TASK, count))
                    break
                except FalseMirror:
                    continue  # the storage asks that mirror no more
        except (InvalidContent, UnsafeLayer) as error:
            raise type(error)(
                f"layer of {escaped(each.name, 100)} ({each.layer.descriptor.digest}): {error}"
            ) from error
        return LayerFiles(each, tuple(listing.files), is_stored, listing.magic)

    try:
        with ThreadPoolExecutor(_THREADS, "lamella-read") as pool:
            return tuple(pool.map(read, packages))
    finally:
        if missing:
            bars.end(_TASK)


def _own_store() -> Store | None:
    try:
        return Store()
    except StoreError:
        return None  # a user without a home, who needs none to look at a registry


def _default(index: PublishedIndex) -> Platform:
    return index.platforms[0] if len(index.platforms) == 1 else Platform.here()


def named(packages: Sequence[PublishedPackage], name: str, reference: str) -> tuple[PublishedPackage, ...]:
    """Those of `packages` with that name: one, or a conda and a pip package; all without a name. Raises `NotFound`."""
    wanted = _plain(name)
    chosen = tuple(each for each in packages if not name or _plain(each.name) == wanted)
    if not chosen:
        from difflib import get_close_matches

        close = get_close_matches(name, [each.name for each in packages], n=1)
        advice = (
            f"did you mean {escaped(close[0], 100)}?" if close else f"list them with lamella inspect --all {reference}"
        )
        raise NotFound(f"{reference}: no package {escaped(name, 100)}; {advice}")
    return chosen


def _plain(name: str) -> str:
    # Source: PEP 503.
    return re.sub(r"[-_.]+", "-", name).lower()


def _read_blob(fetcher: Fetcher, package: PublishedPackage, listing: _Listing, advance: Callable[[int], None]) -> None:
    layer = package.layer
    with fetcher.fetch(layer.descriptor) as stream:
        counted_stream = _Counted(stream, advance)
        tar = decompressed(counted_stream, layer.descriptor.media_type)
        content = DiffReader(tar, layer.diff_id, expansion_limit(layer.descriptor))
        archive = Archive(content)
        for entry in archive:
            listing.add(entry, archive.content())
        content.check()
        if counted_stream.read(1):
            raise InvalidContent("bytes follow the end of its compressed stream")


def _read_stored(store: Store, package: PublishedPackage, listing: _Listing) -> bool:
    """Read a layer of the store; False if it is not there, or can't be read."""
    import zstandard

    diff_id = package.layer.diff_id
    if not store.has(diff_id):
        return False
    tree = os.fsencode(store.layer_path(diff_id))
    try:
        store.check_private()
        with leases.lease(store, [diff_id], "inspect"), open(f"{store.folder(diff_id)}/skeleton", "rb") as file:
            archive = Archive(zstandard.ZstdDecompressor().stream_reader(file), skeleton=True)
            for entry in archive:
                listing.add(entry, _pieces(os.path.join(tree, entry.path)))
    except (OSError, StoreError, InvalidContent, UnsafeLayer, zstandard.ZstdError):
        return False  # freed meanwhile, another user's, or damaged: the blob has the same files
    return True


def _pieces(path: bytes) -> Iterator[bytes]:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while piece := os.read(file, _PIECE):
            yield piece
    finally:
        os.close(file)


class _Counted:
    """A stream that reports the bytes read from it."""

    def __init__(self, stream: Reader, advance: Callable[[int], None]) -> None:
        self._stream = stream
        self._advance = advance

    def read(self, size: int = -1, /) -> bytes:
        piece = self._stream.read(size)
        self._advance(len(piece))
        return piece
