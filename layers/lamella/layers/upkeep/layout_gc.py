"""Free the blobs of an OCI layout folder that its `index.json` no longer leads to.

The layout's lock is held from the look at `index.json` until the last blob is gone, and a push checks under that lock that
all it relied on is there before it sets its tag: a push beside this either keeps its blobs or fails and is repeated. Other
tools take no lock; the age guard protects what they write, since a blob without a name can be the beginning of a push.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamella.layers.errors import InvalidContent, StoreError
from lamella.layers.hardening.regular_file import open_regular
from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import MAX_DOCUMENT, Digest
from lamella.layers.oci.layout_index import tag_of
from lamella.layers.oci.tags import subject_of
from lamella.layers.settings.policy import check_folder
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DAY = 86400.0
"""Age in seconds below which a blob without a name stays: a push that takes longer begins again."""


@dataclass(frozen=True, slots=True)
class FreedBlobs:
    """The freed blobs and their bytes; with `dry_run`, those that would be freed."""

    digests: tuple[Digest, ...]
    bytes: int
    recent: int
    """Number of blobs without a name that are younger than the limit, and stay."""
    tags: tuple[str, ...]
    """Tags that listed attachments of content that is gone."""

    def __repr__(self) -> str:
        return f"<FreedBlobs {counted(len(self.digests), 'blob')}, {size(self.bytes)}>"


@dataclass(frozen=True, slots=True)
class _Blob:
    digest: Digest
    path: str
    bytes: int
    age: float


def gc_layout(folder: str, *, older_than: float = DAY, dry_run: bool = False) -> FreedBlobs:
    """Remove the blobs of the layout in `folder` that no entry of `index.json` leads to.

    `older_than`: seconds since a blob was written below which it stays. Attachments go with the content that they are
    attached to. Safe beside pushes of Lamella; with 0 seconds, such a push may have to be repeated. Idempotent. Raises
    `NotFound` and `StoreError`, and `InvalidContent` if a manifest is damaged, since its blobs are unknown.
    """
    check_folder(folder)
    layout = OciLayout(folder)
    if dry_run:
        return _decide(layout.folder, layout.entries(), older_than)[0]
    with layout.changed() as index:
        freed, blobs = _decide(layout.folder, index["manifests"], older_than)
        index["manifests"] = [entry for entry in index["manifests"] if tag_of(entry) not in freed.tags]
        for blob in blobs:
            with suppress(FileNotFoundError):
                os.unlink(blob.path)
    return freed


def _decide(folder: str, entries: Iterable[dict[str, Any]], older_than: float) -> tuple[FreedBlobs, list[_Blob]]:
    reached, dropped = _reached(folder, list(entries))
    unnamed = [blob for blob in _blobs(folder) if blob.digest not in reached]
    old = sorted((blob for blob in unnamed if blob.age >= older_than), key=lambda blob: str(blob.digest))
    digests = tuple(blob.digest for blob in old)
    freed = FreedBlobs(digests, sum(blob.bytes for blob in old), len(unnamed) - len(old), tuple(sorted(dropped)))
    return freed, old


def _reached(folder: str, entries: list[dict[str, Any]]) -> tuple[set[Digest], set[str]]:
    """The digests that the entries lead to, and the tags of attachments whose subject is not among them."""
    reached: set[Digest] = set()
    waiting = [(entry, subject_of(tag_of(entry))) for entry in entries]
    while True:
        # A list of attachments counts once its subject does; attachments can have attachments of their own.
        now = [entry for entry, subject in waiting if not subject or subject in reached]
        if not now:
            return reached, {tag_of(entry) for entry, _ in waiting}
        waiting = [(entry, subject) for entry, subject in waiting if subject and subject not in reached]
        for entry in now:
            _follow(folder, _digests(entry), reached)


def _follow(folder: str, digests: Iterable[Digest], reached: set[Digest]) -> None:
    pending = list(digests)
    while pending:
        digest = pending.pop()
        if digest not in reached:
            reached.add(digest)
            pending += _digests(_document(folder, digest))


def _document(folder: str, digest: Digest) -> Any:
    """The manifest or index at a digest; None for other or missing content."""
    path = os.path.join(folder, "blobs", digest.algorithm, digest.hex)
    try:
        with open_regular(path) as file:
            # Layers are compressed, or tars: a JSON document begins with a brace.
            if file.read(1) != b"{" or os.fstat(file.fileno()).st_size > MAX_DOCUMENT:
                return None
            file.seek(0)
            content = file.read(MAX_DOCUMENT)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}; nothing was freed") from error
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        if b'"manifests"' in content or b'"layers"' in content:
            raise InvalidContent(
                f"{path}: a damaged manifest, whose blobs are unknown; nothing was freed; push it again, or remove its tag "
                "with lamella untag"
            ) from None
        return None


def _digests(value: Any) -> Iterator[Digest]:
    """Every digest in a document, whatever it stands for: too many keep a blob, too few lose one."""
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            pending += each.values()
            if isinstance(found := each.get("digest"), str):
                with suppress(InvalidContent):
                    yield Digest.parse(found)
        elif isinstance(each, list):
            pending += each


def _blobs(folder: str) -> Iterator[_Blob]:
    now = time.time()
    blobs = os.path.join(folder, "blobs")
    _check_own(blobs)
    for algorithm in os.listdir(blobs) if os.path.isdir(blobs) else ():
        _check_own(os.path.join(blobs, algorithm))
        with suppress(NotADirectoryError), os.scandir(os.path.join(blobs, algorithm)) as files:
            for file in files:
                with suppress(InvalidContent, FileNotFoundError):
                    status = file.stat(follow_symlinks=False)
                    yield _Blob(Digest(algorithm, file.name), file.path, status.st_size, now - status.st_mtime)


def _check_own(path: str) -> None:
    # A stranger's layout could name the blobs of a container engine.
    if os.path.islink(path):
        raise StoreError(
            f"{path}: a link, so that its blobs may be those of another folder; nothing was freed; run gc for "
            f"the folder that it leads to"
        )
