"""The tags of a repository or layout folder, and which of them name environments."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent, NotFound
from lamella.layers.oci.annotations import IMAGE
from lamella.layers.oci.documents import INDEX_TYPES, Index
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.oci.tags import is_derived
from lamella.layers.storages import open_storage
from lamella.layers.trust import Trust

if TYPE_CHECKING:
    from lamella.layers.oci.storage import ReadOnlyStorage

MOST = 1000
"""Tags whose indexes are read, a request each. Later ones, in the order of their names, are listed as they are."""
_THREADS = 8


def tags(reference: str, *, everything: bool = False, trust: Trust = Trust()) -> list[str]:
    """List the tags of environments in the repository or folder that `reference` names, sorted; its own tag is ignored.

    Reads the index of each of up to 1,000 tags. A tag whose index is lost or damaged is listed too, since a push repairs
    it. `everything`: list every tag and read none: images, artifacts, and tags made of a digest, which hold signatures and
    lists of attachments. Raises `NotFound`, `Denied`, `Unreachable`.
    """
    with closing(open_storage(Reference.parse(reference), trust)) as storage:
        every = storage.tags()
        if everything:
            return every
        made = [tag for tag in every if not is_derived(tag)]
        with ThreadPoolExecutor(_THREADS, "lamella-tags") as pool:
            wanted = list(pool.map(lambda tag: _may_be_environment(storage, tag), made[:MOST]))
    return [tag for tag, is_wanted in zip(made, wanted, strict=False) if is_wanted] + made[MOST:]


def _may_be_environment(storage: ReadOnlyStorage, tag: str) -> bool:
    try:
        descriptor = storage.resolve(tag)
        if descriptor.media_type not in INDEX_TYPES:
            return False
        return any(IMAGE in entry.annotations for entry in Index.parse(fetch_document(storage, descriptor)).manifests)
    except (NotFound, InvalidContent):
        return True
