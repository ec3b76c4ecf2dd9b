"""Attach files to an environment, and fetch them again."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.layers.attaching.file_names import checked_name, place
from lamella.layers.attaching.listing import MOST, AttachedArtifact, attached_to, check_type, files_of
from lamella.layers.errors import ExportError, InvalidArgument, InvalidContent, NotFound
from lamella.layers.oci.documents import Digest, Manifest
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.oci.values import clean_text
from lamella.layers.progress.display import Silent
from lamella.layers.settings.trust import Trust
from lamella.layers.signing import cosign
from lamella.layers.storages import open_storage
from lamella.layers.text import counted, escaped, size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamella.layers.oci.documents import Descriptor
    from lamella.layers.oci.storage import Storage
    from lamella.layers.progress.display import Progress
    from lamella.layers.signing.keys import PrivateKey

_TASK = "fetch"


@dataclass(frozen=True, slots=True)
class Attached:
    """What `attach` pushed, or would push."""

    reference: str
    """The environment, pinned."""
    artifact: str
    """The artifact, pinned: the same repository or folder, with the digest of its manifest."""
    files: tuple[str, ...]
    """Names of its files."""

    def __repr__(self) -> str:
        return f"<Attached {self.artifact}: {counted(len(self.files), 'file')}>"


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """Which artifacts `fetch` takes, and how."""

    digest: str = ""
    """Only the artifact with this one; by default all of the type."""
    force: bool = False
    """Replace files; by default a file in the way is an error."""
    limit: int = 1 << 30
    """Most bytes to download: files beside an environment are small."""


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """One file that `fetch` wrote, or would write."""

    path: str
    size: int
    digest: Digest
    artifact: Digest
    """Of the manifest that names it."""


def attach(
    reference: str,
    files: Sequence[str],
    artifact_type: str,
    *,
    annotations: Mapping[str, str] | None = None,
    signing_key: PrivateKey | None = None,
    dry_run: bool = False,
    trust: Trust = Trust(),
) -> Attached:
    """Attach `files` to the index that `reference` names, as one OCI artifact of `artifact_type`.

    Each file keeps the last part of its path as its name. Idempotent: equal files and annotations make one artifact.
    `signing_key`: sign the artifact, since the index's signature does not cover it. Raises `InvalidReference`,
    `InvalidContent` for an invalid type, annotation or file name, `ExportError` if a file can't be read, `NotFound`,
    `Denied`, `Unreachable`, `StoreError`.
    """
    parsed = Reference.parse(reference)
    names = _names(files)
    check_type(artifact_type)
    for name, value in (annotations or {}).items():
        if not name or clean_text(name) is None or clean_text(value) is None:
            raise InvalidArgument(f"{escaped(name, 100)!r}: not an annotation; use NAME=VALUE of at most 4,096 bytes")
    with closing(open_storage(parsed, trust, mirrors=False)) as storage:
        root = storage.resolve(str(parsed.digest) if parsed.digest else parsed.tag)
        # Imported only then: every other verb starts faster without it.
        from lamella.layers.attaching import oras_client

        pushed = oras_client.push(storage, root, files, artifact_type, annotations or {}, dry_run=dry_run)
        if signing_key and not dry_run:
            cosign.sign_digest(storage, parsed, pushed.digest, signing_key)
    return Attached(str(parsed.at(root.digest)), str(_untagged(parsed, pushed.digest)), names)


def fetch(
    reference: str,
    folder: str,
    artifact_type: str,
    *,
    options: FetchOptions = FetchOptions(),
    dry_run: bool = False,
    trust: Trust = Trust(),
    progress: Progress | None = None,
) -> tuple[FetchedFile, ...]:
    """Write the files of every artifact of `artifact_type` attached to `reference` into `folder`.

    Nothing is written before everything is downloaded and verified, and nothing outside `folder`, whatever the files'
    names. Raises `InvalidReference`, `NotFound` if there is no such artifact, `InvalidContent` for names that leave a folder and for
    content that is not what its digest says, `NotSigned` unless each artifact is signed as `trust` and this machine's
    policy require, `ExportError` if a file is in the way, `Denied`, `Unreachable`.
    """
    parsed = Reference.parse(reference)
    check_type(artifact_type)
    cosign.check_keys(trust)
    with closing(open_storage(parsed, trust)) as storage:
        root = storage.resolve(str(parsed.digest) if parsed.digest else parsed.tag)
        wanted = Digest.parse(options.digest) if options.digest else None
        chosen = [each for each in attached_to(storage, root, artifact_type) if wanted is None or each.digest == wanted]
        if not chosen:
            kind = escaped(f"{artifact_type} {options.digest}".rstrip(), 300)
            raise NotFound(f"{parsed}: no artifact of type {kind}; list others with lamella artifacts {parsed}")
        manifests = [_manifest(storage, parsed, each, trust) for each in chosen]
        files = _planned(folder, manifests, options)
        if not dry_run:
            _write(
                storage,
                folder,
                [manifest for _, manifest in manifests],
                force=options.force,
                progress=progress or Silent(),
            )
    return files


def _names(files: Sequence[str]) -> tuple[str, ...]:
    names: dict[str, str] = {}
    for path in files:
        name = checked_name(os.path.basename(os.path.normpath(path)))
        if os.path.isdir(path):
            raise ExportError(f"{path}: a folder; attach an archive of it")
        if os.path.exists(path) and not os.path.isfile(path):
            raise ExportError(f"{path}: not a regular file; attach a copy of its content")
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise ExportError(f"{path}: {error.strerror}; name a file that can be read") from error
        if name in names:
            raise InvalidArgument(f"{path}: the same name as {names[name]}; rename one or attach them one by one")
        names[name] = path
    if not names:
        raise InvalidArgument("no file to attach; name at least one")
    if len(names) > MOST:
        raise InvalidArgument(f"{counted(len(names), 'file')}: at most {MOST:,} in one artifact; attach an archive")
    return tuple(names)


def _untagged(reference: Reference, digest: Digest) -> Reference:
    return Reference(reference.registry, reference.repository, folder=reference.folder, digest=digest)


def _manifest(
    storage: Storage, reference: Reference, artifact: AttachedArtifact, trust: Trust
) -> tuple[Descriptor, Manifest]:
    if artifact.error:
        raise InvalidContent(f"{artifact.digest}: {artifact.error}; check it with lamella verify {reference}")
    # The index's signature does not cover later attachments.
    cosign.require(storage, _untagged(reference, artifact.digest), artifact.digest, trust)
    return artifact.descriptor, Manifest.parse(fetch_document(storage, artifact.descriptor))


def _planned(
    folder: str, manifests: Sequence[tuple[Descriptor, Manifest]], options: FetchOptions
) -> tuple[FetchedFile, ...]:
    """The files to write, each name checked; nothing is written yet."""
    planned: dict[str, FetchedFile] = {}
    for descriptor, manifest in manifests:
        for file in files_of(manifest):
            name = checked_name(file.name)
            if name in planned:
                raise InvalidContent(
                    f"{name}: in {planned[name].artifact} and {descriptor.digest}; choose one with --digest"
                )
            path = os.path.join(folder, name)
            if not options.force and os.path.lexists(path):
                raise ExportError(f"{path}: already exists; name another folder, or replace it with --force")
            planned[name] = FetchedFile(path, file.size, file.digest, descriptor.digest)
    total = sum(file.size for file in planned.values())
    if total > options.limit:
        raise InvalidContent(
            f"{size(total)} in {counted(len(planned), 'file')}: more than {size(options.limit)}; use --limit"
        )
    return tuple(planned.values())


def _write(storage: Storage, folder: str, manifests: Sequence[Manifest], *, force: bool, progress: Progress) -> None:
    from lamella.layers.attaching import oras_client

    try:
        os.makedirs(folder, exist_ok=True)
        # In a folder of our own, so that no name meets a link, and beside the files' places, so that a rename suffices.
        staging = tempfile.mkdtemp(prefix=".lamella-fetch-", dir=folder)
    except OSError as error:
        raise ExportError(f"{folder}: {error.strerror}; name a folder that can be written") from error
    progress.begin(_TASK, sum(layer.size for manifest in manifests for layer in manifest.layers), "B")
    try:
        for manifest in manifests:
            oras_client.pull(storage, manifest, staging, lambda count: progress.advance(_TASK, count))
        for manifest in manifests:
            for file in files_of(manifest):
                place(os.path.join(staging, file.name), folder, file.name, force=force)
    except OSError as error:
        raise ExportError(f"{folder}: {error.strerror}; free some space or name another folder") from error
    finally:
        progress.end(_TASK)
        shutil.rmtree(staging, ignore_errors=True)
