"""An OCI image layout: a folder with the content of a repository.

Blobs and manifests are files named by their digests; `index.json` names those that have a tag. Every file is written
beside its name, synced and renamed, and `index.json` is changed under a lock, so that a layout is whole at any
moment and any number of pushers succeed. A tag is durable: before it changes, the folders that hold what it names are
synced. Source: image-spec v1.1, image-layout.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING, Any, BinaryIO

from lamella.layers.errors import Busy, InvalidContent, NotFound, StoreError
from lamella.layers.hardening.durable import sync_folder
from lamella.layers.hardening.file_locks import try_lock
from lamella.layers.hardening.permissions import foreign_link
from lamella.layers.hardening.regular_file import open_regular
from lamella.layers.oci.documents import INDEX, MAX_DOCUMENT, Descriptor, Digest, canonical_json
from lamella.layers.oci.layout_index import tag_of, tagged, tags_of, without_tag
from lamella.layers.oci.parsing import parse_object, shallow
from lamella.layers.oci.storage import HashedFile, VerifiedReader
from lamella.layers.oci.tags import listed
from lamella.layers.text import seconds, size

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

    from lamella.layers.oci.storage import OpenContent, Reader

_MARKER = canonical_json({"imageLayoutVersion": "1.0.0"})
_EMPTY_INDEX = canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": []})
_PARTIAL = ".partial-"
_LOCK = ".lock"
_NO_LAYOUT = "no such OCI layout; correct the folder of oci:FOLDER:TAG"
PATIENCE = 60.0
"""Seconds to wait for another push, which holds the lock for milliseconds."""
_POLL = 0.01
_STALE = 24 * 3600
"""Age in seconds of a partial file that is removed if its writer is gone too: clocks jump, so the lock decides."""
_CHUNK = 256 << 10
"""Bytes per read: for more, the allocator takes new pages from the system each time."""
_NO_KERNEL_COPY = frozenset({errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY})
"""Answers of kernels and file systems that copy between no two files, or not between these."""
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})
"""Answers of file systems without hard links: exFAT, FAT, object stores behind FUSE."""


class OciLayout:
    """A layout as a `Storage`. `create`: the first push creates a missing folder; nothing is created before it."""

    def __init__(self, folder: str, *, create: bool = False) -> None:
        self._folder = os.path.abspath(folder)
        self._create = create
        self._whole = False
        self._relied_on: set[Digest] = set()
        self._new = create and not os.path.lexists(self._folder)
        if self._new:
            return
        self._check()

    def fetch(self, descriptor: Descriptor) -> contextlib.AbstractContextManager[Reader]:
        """See `Fetcher`."""
        return self._fetch(descriptor)

    @contextlib.contextmanager
    def _fetch(self, descriptor: Descriptor) -> Iterator[Reader]:
        try:
            stream = open_regular(self._blob(descriptor.digest))
        except FileNotFoundError:
            raise NotFound(f"{descriptor.digest}: not in the layout {self._folder}") from None
        except OSError as error:
            raise _failure(error, f"{self._folder}: cannot read {descriptor.digest}") from error
        with stream:
            yield VerifiedReader(_Translating(stream, self._folder), descriptor)

    def exists(self, descriptor: Descriptor) -> bool:
        """See `Pusher`. A file of another size is not the content: a push replaces it."""
        try:
            if os.stat(self._blob(descriptor.digest)).st_size != descriptor.size:
                return False
            self._relied_on.add(descriptor.digest)
            return True
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _failure(error, f"{self._folder}: cannot read {descriptor.digest}") from error

    def check_writable(self) -> None:
        """See `Pusher`. Write an empty file and remove it."""
        try:
            os.makedirs(self._folder, exist_ok=True)
            with self._partial():
                pass
        except OSError as error:
            raise _failure(error, f"{self._folder}: cannot write to the layout") from error

    def push(self, descriptor: Descriptor, content: OpenContent, *, tag: str = "") -> None:
        """See `Pusher`. Compare the content with the descriptor while writing it."""
        blob = self._blob(descriptor.digest)
        try:
            os.makedirs(self._folder, exist_ok=True)
            with contextlib.closing(content()) as stream:
                self._write(blob, lambda file: _copy(stream, file, descriptor))
            self._relied_on.add(descriptor.digest)
            self._make()
            if tag:
                self._tag(descriptor, tag)
        except OSError as error:
            raise _failure(error, f"{self._folder}: cannot write {descriptor.digest}") from error

    def mount(self, descriptor: Descriptor, repository: str) -> bool:  # noqa: ARG002 - a layout has one repository
        """See `Pusher`. A layout has no other repositories."""
        return False

    def resolve(self, name: str) -> Descriptor:
        """See `Resolver`."""
        if ":" in name:
            return self._by_digest(Digest.parse(name))
        entries = self.entries()
        named = [entry for entry in entries if tag_of(entry) == name]
        if not named:
            raise NotFound(f"{self._folder}: no tag {name!r} in the layout; {listed(tags_of(entries))}")
        # Tools that append instead of replacing leave the newest last.
        return without_tag(Descriptor.from_value(named[-1]))

    def tags(self) -> list[str]:
        """See `Resolver`."""
        return tags_of(self.entries())

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...] | None:  # noqa: ARG002 - for none of them
        """See `Storage`. A layout has no referrers API: tags list attachments."""
        return None

    def remove_tag(self, tag: str) -> None:
        """See `Remover`. `collect` frees the content."""
        with self.changed() as index:
            index["manifests"] = [entry for entry in index["manifests"] if tag_of(entry) != tag]

    def delete(self, digest: Digest) -> None:
        """See `Remover`. `collect` frees the content."""
        with self.changed() as index:
            index["manifests"] = [entry for entry in index["manifests"] if entry.get("digest") != str(digest)]

    @contextlib.contextmanager
    def changed(self) -> Iterator[dict[str, Any]]:
        """Change index.json: the block gets it under the layout's lock, and it is replaced if the block changed it.

        Removes the remains of killed pushes. Raises `StoreError`.
        """
        try:
            with self._locked():
                index = self._index()
                before = canonical_json(index)
                yield index
                if (after := canonical_json(index)) != before:
                    self._write(os.path.join(self._folder, "index.json"), _writer(after))
                    sync_folder(self._folder)
                self._sweep()
        except OSError as error:
            raise _failure(error, f"{self._folder}: cannot write to the layout") from error

    @property
    def folder(self) -> str:
        """The absolute path."""
        return self._folder

    def close(self) -> None:
        """Remove the folder if it was created here and every push failed; not before, since others may be under way."""
        if self._new and not self._whole:
            with contextlib.suppress(OSError):
                os.rmdir(self._folder)

    def _check(self) -> None:
        folder = self._folder
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            raise NotFound(f"{folder}: {_NO_LAYOUT}") from None
        except NotADirectoryError:
            raise StoreError(f"{folder}: not a directory; use the folder of an OCI layout") from None
        except OSError as error:
            raise _failure(error, f"{folder}: cannot read the layout") from error
        if "oci-layout" not in names:
            # A first push that is under way or was killed, here or elsewhere: blobs, but no marker yet.
            begun = self._create and self._begun(names)
            # Another push may have finished the layout meanwhile.
            if not begun and not os.path.lexists(os.path.join(folder, "oci-layout")):
                if names and self._begun(names):
                    raise NotFound(f"{folder}: its first push has not ended; wait for it, or push again")
                raise StoreError(f"{folder}: not an OCI layout, no file 'oci-layout' in it; use another folder")
            if begun:
                return
        version = _json(os.path.join(folder, "oci-layout")).get("imageLayoutVersion")
        if version != "1.0.0":
            raise InvalidContent(
                f"{folder}: unsupported OCI layout version {str(version)[:40]!r}; version 1.0.0 is supported"
            )
        self._whole = True

    def _begun(self, names: list[str]) -> bool:
        """Whether a first push created all of `names`. A foreign folder can have such names, but not such files."""
        for name in names:
            path = os.path.join(self._folder, name)
            if name == "index.json":
                if not _holds(path, _EMPTY_INDEX):
                    return False
            elif name == "blobs":
                if not _only_blobs(path):
                    return False
            elif name != _LOCK and not name.startswith(_PARTIAL):
                return False
        return True

    def _make(self) -> None:
        """Write the two files of a layout if they are missing; another process may do the same now."""
        if self._whole:
            return
        # The marker last: a layout that has it is whole.
        for name, content in (("index.json", _EMPTY_INDEX), ("oci-layout", _MARKER)):
            path = os.path.join(self._folder, name)
            if not os.path.lexists(path):
                self._write(path, _writer(content), replace=False)
        sync_folder(os.path.dirname(self._folder))
        self._check()

    def _write(self, path: str, fill: Callable[[BinaryIO], object], *, replace: bool = True) -> None:
        with self._partial() as (file, partial):
            fill(file)
            file.flush()
            # Without it a crash soon after may leave an empty file under the final name.
            os.fsync(file.fileno())
            # Windows renames no open file. Without the lock, the file's age keeps it from a sweep.
            file.close()
            if problem := foreign_link(os.path.dirname(path)):
                raise StoreError(problem)
            if replace:
                # Not before there is something for it: what a failed push leaves of a new layout is one empty folder.
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.replace(partial, path)
            else:
                self._place(partial, path)

    def _place(self, partial: str, path: str) -> None:
        """Rename `partial` to `path` unless that exists."""
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # rename(2) replaces: two that make a layout at once take turns.
            with self._locked():
                if not os.path.lexists(path):
                    os.replace(partial, path)

    @contextlib.contextmanager
    def _partial(self) -> Iterator[tuple[BinaryIO, str]]:
        """A new file, locked while it is written; gone afterwards unless it was renamed."""
        while True:
            path = os.path.join(self._folder, f"{_PARTIAL}{os.urandom(8).hex()}")
            file = open(path, "xb")  # noqa: SIM115 - closed before it is removed
            try:
                with file:
                    # Without locks on this file system, a sweep can't lock it either, and leaves it alone.
                    with contextlib.suppress(OSError):
                        try_lock(file.fileno())
                    # If a sweep between the two calls took it, the next name is as good.
                    if os.fstat(file.fileno()).st_nlink:
                        yield file, path
                        return
            finally:
                # Closed by now: Windows removes no open file.
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def _tag(self, descriptor: Descriptor, tag: str) -> None:
        entry = tagged(descriptor, tag)
        # Also what others wrote: after a power cut a tag must not name files that are gone.
        self._sync()
        with self.changed() as index:
            self._check_content()
            # Entries stay as they were written: other tools keep fields there that Descriptor does not know.
            others = [other for other in index["manifests"] if tag_of(other) != tag]
            index["manifests"] = [*others, entry]

    def _check_content(self) -> None:
        """Raise `NotFound` if content that this push wrote, or found here, was collected meanwhile."""
        relied_on = tuple(self._relied_on)
        # A name protects it from now on.
        self._relied_on.difference_update(relied_on)
        for digest in relied_on:
            if not os.path.exists(self._blob(digest)):
                raise NotFound(f"{digest}: removed from the layout {self._folder} by lamella gc; push again")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the layout's lock, which orders the changes of index.json."""

        descriptor = self._open_lock()
        try:
            deadline = time.monotonic() + PATIENCE
            while not try_lock(descriptor):
                if time.monotonic() > deadline:
                    raise Busy(
                        f"{self._folder}: locked by another process for {seconds(PATIENCE)}; end it, then push again"
                    )
                time.sleep(_POLL)
            yield
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int:
        # A file of its own, closed to those who may only read the layout: flock(2) asks for no right to write. Open for
        # writing, since NFS gives no exclusive lock otherwise.
        path = os.path.join(self._folder, _LOCK)
        flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(path, flags)
        writers = os.stat(self._folder).st_mode & 0o222
        with contextlib.suppress(OSError):  # a file system without modes
            os.chmod(path, 0o600 | writers | writers << 1)
        return descriptor

    def _sync(self) -> None:
        """Make the names of all blobs durable; their bytes were synced before they had names."""
        blobs = os.path.join(self._folder, "blobs")
        for folder in (*(os.path.join(blobs, name) for name in os.listdir(blobs)), blobs, self._folder):
            sync_folder(folder)

    def _sweep(self) -> None:
        """Remove files that killed pushes left behind: old ones that are not locked."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                # Files that are being written vanish, or are locked; others may belong to another user.
                with contextlib.suppress(OSError):
                    if entry.name.startswith(_PARTIAL) and entry.stat().st_mtime < time.time() - _STALE:
                        with open(entry.path, "rb") as file:
                            if try_lock(file.fileno()):
                                os.unlink(entry.path)

    def _index(self) -> dict[str, Any]:
        document = _json(os.path.join(self._folder, "index.json"))
        manifests = document.get("manifests")
        if not isinstance(manifests, list) or not all(isinstance(entry, dict) for entry in manifests):
            raise InvalidContent(
                f"{self._folder}/index.json: 'manifests' is missing or not a list; push to another folder"
            )
        return document

    def entries(self) -> list[dict[str, Any]]:
        """The entries of index.json as they are; `NotFound` before the first push."""
        # A first push that was killed leaves blobs without an index: the next one starts over.
        if not self._whole and not os.path.lexists(os.path.join(self._folder, "index.json")):
            raise NotFound(f"{self._folder}: {_NO_LAYOUT}")
        manifests: list[dict[str, Any]] = self._index()["manifests"]
        return manifests

    def _by_digest(self, digest: Digest) -> Descriptor:
        for entry in self.entries():
            if entry.get("digest") == str(digest):
                return without_tag(Descriptor.from_value(entry))
        # A child of an index: only its own bytes tell what it is.
        path = self._blob(digest)
        try:
            size = os.stat(path).st_size
        except FileNotFoundError:
            raise NotFound(f"{digest}: not in the layout {self._folder}") from None
        except OSError as error:
            raise _failure(error, f"{self._folder}: cannot read {digest}") from error
        media_type = _json(path).get("mediaType")
        if not isinstance(media_type, str):
            raise InvalidContent(f"{digest}: no mediaType in this manifest in {self._folder}; push it again")
        return Descriptor(media_type, digest, size)

    def _blob(self, digest: Digest) -> str:
        return os.path.join(self._folder, "blobs", digest.algorithm, digest.hex)


class _Translating:
    """A file whose read errors are translated into this package's."""

    def __init__(self, stream: BinaryIO, folder: str) -> None:
        self._stream = stream
        self._folder = folder

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._stream.read(size)
        except OSError as error:
            raise _failure(error, f"{self._folder}: cannot read the layout") from error


def _holds(path: str, content: bytes) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(content) + 1) == content
    except OSError:
        return False


def _only_blobs(folder: str) -> bool:
    """Whether everything in `folder` is a blob by its name."""
    try:
        names = [(algorithm, name) for algorithm in os.listdir(folder) for name in os.listdir(f"{folder}/{algorithm}")]
        return all(_is_digest(algorithm, name) for algorithm, name in names)
    except OSError:
        return False


def _is_digest(algorithm: str, name: str) -> bool:
    try:
        Digest(algorithm, name)
    except InvalidContent:
        return False
    return True


def _copy(stream: Reader, file: BinaryIO, descriptor: Descriptor) -> None:
    """Write what `descriptor` names from `stream` to a new file. Raises `InvalidContent`."""
    if isinstance(stream, HashedFile) and hasattr(os, "copy_file_range"):
        if _copied_in_kernel(stream, file.fileno(), descriptor):
            return
        stream.seek(0)
        file.seek(0)
        file.truncate()
    reader = VerifiedReader(stream, descriptor)
    while chunk := reader.read(_CHUNK):
        file.write(chunk)


def _copied_in_kernel(source: io.FileIO, target: int, descriptor: Descriptor) -> bool:
    """Copy a file. False if the kernel cannot, or another number of bytes came: some file systems end a copy early."""
    try:
        # Both share their blocks on file systems that can.
        while os.copy_file_range(source.fileno(), target, 1 << 30):
            pass
    except OSError as error:
        if error.errno not in _NO_KERNEL_COPY:
            raise
        return False
    return os.fstat(target).st_size == descriptor.size


def _writer(content: bytes) -> Callable[[BinaryIO], object]:
    return lambda file: file.write(content)


def _json(path: str) -> dict[str, Any]:
    try:
        with open_regular(path) as file:
            content = file.read(MAX_DOCUMENT + 1)
    except FileNotFoundError:
        raise InvalidContent(f"{path}: missing from a damaged layout; push to another folder") from None
    except OSError as error:
        raise _failure(error, f"{path}: cannot read the layout") from error
    if len(content) > MAX_DOCUMENT:
        raise InvalidContent(f"{path}: larger than {size(MAX_DOCUMENT)}; push to another folder")
    try:
        # Entries are written again as they are.
        return shallow(parse_object(content, path), path)
    except InvalidContent as error:
        # Without the beginning of the content: another user's layout may hold a link to a file that is private.
        problem = str(error).partition(": it begins with")[0]
        raise InvalidContent(f"{problem}, the layout is damaged; push to another folder") from None


def _failure(error: OSError, action: str) -> StoreError:
    advice = {
        errno.ENOSPC: "no space left on its disk; free some, then try again; complete blobs are kept",
        errno.EDQUOT: "no space left in the quota; free some, then try again; complete blobs are kept",
        errno.EACCES: "permission denied; change the folder's permissions or name another",
        errno.EPERM: "permission denied; change the folder's permissions or name another",
        errno.EROFS: "the file system is read-only; name another folder",
        errno.ENOTDIR: "a file is where a folder should be; name another folder",
        errno.EEXIST: "a file is where a folder should be; name another folder",
        errno.ELOOP: "a symlink is in the place of a file, and is not followed; remove it",
    }
    return StoreError(f"{action}: {advice.get(error.errno or 0, f'{error.strerror or error}; name another folder')}")
