"""The tags of a repository or layout folder, and which of them name environments."""

from __future__ import annotations

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent, InvalidReference, NotFound
from lamella.layers.oci.annotations import CREATED, IMAGE
from lamella.layers.oci.documents import INDEX_TYPES, Index
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.oci.tags import is_derived
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage

if TYPE_CHECKING:
    from lamella.layers.oci.documents import Digest
    from lamella.layers.oci.storage import ReadOnlyStorage

_SAME = "1980-01-0"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
MOST = 1000
"""Tags whose indexes are read, a request each. Later ones, in the order of their names, are listed as they are."""
_THREADS = 8


@dataclass(frozen=True, slots=True)
class TaggedEnvironment:
    """A tag of an environment."""

    tag: str
    digest: Digest | None
    """The index's; None if it is lost, or was not read."""
    created: str
    """When it was pushed, in RFC 3339 form, as the pusher (`--created`) or a layout folder has it; else empty."""
    platforms: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<TaggedEnvironment {self.tag}: {', '.join(self.platforms) or 'lost'}>"


def tags(reference: str, *, everything: bool = False, trust: Trust = Trust()) -> list[str]:
    """List the tags of environments in the repository or folder that `reference` names, sorted.

    Reads the index of each of up to 1,000 tags. A tag whose index is lost or damaged is listed too, since a push repairs
    it. `everything`: list every tag and read none: images, artifacts, and tags made of a digest, which hold signatures and
    lists of attachments. Raises `NotFound`, `Denied`, `Unreachable`, and `InvalidReference` for one with a tag or digest.
    """
    if not everything:
        return [found.tag for found in tagged_environments(reference, trust=trust)]
    with closing(open_storage(_repository(reference), trust)) as storage:
        return storage.tags()


def tagged_environments(reference: str, *, trust: Trust = Trust()) -> tuple[TaggedEnvironment, ...]:
    """List the environments of the repository or folder that `reference` names, by tag.

    One request for each of up to 1,000 tags, eight at once; later ones have a tag alone. Raises as `tags` does.
    """
    parsed = _repository(reference)
    with closing(open_storage(parsed, trust)) as storage:
        made = [tag for tag in storage.tags() if not is_derived(tag)]
        with ThreadPoolExecutor(_THREADS, "lamella-tags") as pool:
            found = list(pool.map(lambda tag: _environment(storage, parsed, tag), made[:MOST]))
    return (*filter(None, found), *(TaggedEnvironment(tag, None, "") for tag in made[MOST:]))


def _repository(reference: str) -> Reference:
    """Parse a reference that names a repository or folder alone."""
    parsed = Reference.parse(reference)
    if parsed.digest or reference.removeprefix("oci:").endswith(f":{parsed.tag}"):
        place = f"oci:{parsed.folder}" if parsed.is_layout else f"{parsed.registry}/{parsed.repository}"
        raise InvalidReference(f"{reference}: names one environment; list all of them with lamella tags {place}")
    return parsed


def _environment(storage: ReadOnlyStorage, parsed: Reference, tag: str) -> TaggedEnvironment | None:
    """The environment at `tag`; None for another image."""
    try:
        descriptor = storage.resolve(tag)
        if descriptor.media_type not in INDEX_TYPES:
            return None
        index = Index.parse(fetch_document(storage, descriptor))
    except (NotFound, InvalidContent):
        return TaggedEnvironment(tag, None, "")
    if not any(IMAGE in entry.annotations for entry in index.manifests):
        return None
    platforms = (entry.platform for entry in index.manifests if entry.platform and IMAGE not in entry.annotations)
    created = index.annotations.get(CREATED, "")
    # Without --created, each push has the same one, so that equal environments have equal digests.
    if not _TIME.fullmatch(created) or created.startswith(_SAME):
        created = _written(parsed, descriptor.digest)
    return TaggedEnvironment(tag, descriptor.digest, created, tuple(map(str, dict.fromkeys(platforms))))


def _written(parsed: Reference, digest: Digest) -> str:
    """When a layout folder got the index; empty for a registry, which does not show it."""
    if not parsed.is_layout:
        return ""
    try:
        seen = os.stat(os.path.join(parsed.folder, "blobs", digest.algorithm, digest.hex))
    except OSError:
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seen.st_mtime))
