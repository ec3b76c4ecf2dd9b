"""A repository of a registry, over HTTP. Source: distribution-spec v1.1."""

from __future__ import annotations

import contextlib
import hashlib
import io
import threading
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from lamella.layers.errors import (
    Denied,
    FalseMirror,
    InvalidContent,
    LayersError,
    NotFound,
    Unreachable,
    UnsafeLayer,
)
from lamella.layers.oci.documents import INDEX_TYPES, MANIFEST_TYPES, MAX_DOCUMENT, Descriptor, Digest, Index
from lamella.layers.oci.parsing import parse_object
from lamella.layers.oci.reference import is_tag
from lamella.layers.oci.storage import VerifiedReader
from lamella.layers.oci.tags import is_derived, listed
from lamella.layers.oci.values import bounded_decimal
from lamella.layers.registry import credentials
from lamella.layers.registry.client import Body
from lamella.layers.registry.download import Download, fitting
from lamella.layers.registry.endpoint import client_of, mirror_client
from lamella.layers.registry.hosts import hosts_of
from lamella.layers.registry.pages import pages
from lamella.layers.registry.remembered import Remembered
from lamella.layers.registry.response import reason_of
from lamella.layers.registry.retry import Patience, patiently
from lamella.layers.registry.upload import PART, SUCCESS, TooLarge, Upload, location_of, opened
from lamella.layers.settings.trust import Trust
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from lamella.layers.oci.storage import OpenContent, Reader
    from lamella.layers.registry.client import Client
    from lamella.layers.registry.hosts import Host
    from lamella.layers.registry.remembered import Notes
    from lamella.layers.registry.response import Response

_DOCUMENTS = MANIFEST_TYPES | INDEX_TYPES
_ACCEPT = ", ".join(sorted(_DOCUMENTS))


class Registry:
    """A repository as a `Storage`, used from any number of threads.

    It speaks HTTPS; plain HTTP if `trust` is insecure, or on loopback if the server refuses TLS.
    `mirrors`: read from mirrors first. Without, the repository is opened to write. `notes`: facts
    about the registry that earlier processes learned.
    """

    def __init__(
        self,
        registry: str,
        repository: str,
        *,
        trust: Trust = Trust(),
        patience: Patience = Patience(),
        part: int = PART,
        mirrors: bool = True,
        notes: Notes | None = None,
    ) -> None:
        self._name = registry
        self._repository = repository
        self._trust = trust
        self._patience = patience
        find = partial(credentials.find, registry, repository)
        self._hosts = hosts_of(registry, trust.hosts_dir)
        self._client = client_of(registry, find, trust=trust, patience=patience, hosts=self._hosts, notes=notes)
        self._remembered = Remembered(notes, lambda: self._client.address.url)
        self._lock = threading.Lock()
        self._sessions: dict[Digest, str] = {}
        self._in_parts = False
        self._part = part
        self._read: dict[Digest, bytes] = {}
        self._writes = not mirrors
        self._known_mirrors: list[tuple[Host, Client]] | None = None if mirrors else []
        self._dead: set[str] = set()

    def __str__(self) -> str:
        return f"{self._name}/{self._repository}"

    def fetch(self, descriptor: Descriptor) -> contextlib.AbstractContextManager[Reader]:
        """See `Fetcher`."""
        return self._fetch(descriptor)

    @contextlib.contextmanager
    def _fetch(self, descriptor: Descriptor) -> Iterator[Reader]:
        if descriptor.media_type in _DOCUMENTS:
            with self._lock:
                content = self._read.pop(descriptor.digest, None)
            if content is None:
                content = self._document(str(descriptor.digest))[1]
            yield VerifiedReader(io.BytesIO(content), descriptor)
            return
        target = f"/{self._repository}/blobs/{descriptor.digest}"
        left = [pair for pair in self._mirrors if pair[0].base not in self._dead]

        used: list[Host] = []

        def ask(headers: dict[str, str], offset: int) -> Response:
            # Each is asked once: a blob that breaks off at a mirror continues at the next, in the
            # end at the registry.
            while left:
                mirror, client = left.pop(0)
                with self._forgiving(mirror):
                    response = self._get(client, target + self._namespace, descriptor.digest, headers)
                    fitting(response, descriptor, offset)
                    used.append(mirror)
                    return response
            return fitting(self._get(self._client, target, descriptor.digest, headers), descriptor, offset)

        with contextlib.closing(Download(descriptor, ask, self._patience)) as download, self._blaming(used):
            yield _Blaming(VerifiedReader(download, descriptor), partial(self._blaming, used))

    def exists(self, descriptor: Descriptor) -> bool:
        """See `Pusher`."""
        kind = "manifests" if descriptor.media_type in _DOCUMENTS else "blobs"
        target = f"/{self._repository}/{kind}/{descriptor.digest}"
        with self._patiently("HEAD", target, SUCCESS | {404}, headers={"Accept": _ACCEPT}) as response:
            if response.status == 404:
                return False
            stored = response.header("Docker-Content-Digest")
            if stored and stored != str(descriptor.digest):
                raise InvalidContent(f"{self._name}: has {escaped(stored, 100)} instead of {descriptor.digest}")
            if response.content_type == "text/html":
                raise InvalidContent(
                    f"{self._name}: answer is a web page; check for a proxy or a login page in between"
                )
            # A registry that lost a part of a blob keeps its name; some answer HEAD without a
            # length, or with 0.
            length = bounded_decimal(response.header("Content-Length"))
            return kind == "manifests" or not length or length == descriptor.size

    def check_writable(self) -> None:
        """See `Pusher`. Begins and cancels an upload: no other request shows the right to push."""
        target = f"/{self._repository}/blobs/uploads/"
        with self._patiently("POST", target, SUCCESS, scopes=self._pushing()) as response:
            session = location_of(response) if response.header("Location") else ""
        if session:
            # Registries clear sessions away by themselves, too.
            with contextlib.suppress(LayersError):
                self._client.request("DELETE", session, self._repository, SUCCESS, scopes=self._pushing()).close()

    def push(self, descriptor: Descriptor, content: OpenContent, *, tag: str = "") -> None:
        """See `Pusher`."""
        if descriptor.media_type in _DOCUMENTS:
            self._push_document(descriptor, content, tag)
            return

        upload = Upload(self._client, self._repository, descriptor, content, self._part)
        tried = False

        def attempt() -> None:
            nonlocal tried
            # The last attempt may have lost only its answer.
            if tried and self.exists(descriptor):
                return
            tried = True
            with self._lock:
                session, in_parts = self._sessions.pop(descriptor.digest, ""), self._in_parts
            if not in_parts or descriptor.size <= self._part:
                try:
                    upload.whole(session)
                    return
                except TooLarge:
                    if descriptor.size <= self._part:
                        raise
                    with self._lock:
                        self._in_parts = True
            upload.in_parts()

        patiently(self._patience, attempt)

    def mount(self, descriptor: Descriptor, repository: str) -> bool:
        """See `Pusher`."""
        query = urlencode({"mount": str(descriptor.digest), "from": repository})
        target = f"/{self._repository}/blobs/uploads/?{query}"
        scopes = {*self._pushing(), f"repository:{repository}:pull"}
        try:
            with self._patiently("POST", target, SUCCESS, scopes=scopes) as response:
                location = response.header("Location")
                # Some registries begin an upload with 201 too.
                if response.status == 201 and "/uploads/" not in location:
                    return True
                if location:
                    with self._lock:
                        self._sessions[descriptor.digest] = location_of(response)
                return False
        except (Denied, NotFound):
            return False

    def resolve(self, name: str) -> Descriptor:
        """See `Resolver`. The document itself is kept, for the `fetch` that follows."""
        try:
            media_type, content = self._document(name)
        except NotFound as error:
            # A list of tags helps neither with a digest nor with a tag derived from one.
            if ":" in name or is_derived(name):
                raise
            advice = "list its tags with lamella tags"
            with contextlib.suppress(LayersError):
                advice = listed(next(self._tag_pages()))
            raise NotFound(f"{self._name}/{self._repository}: no tag {name!r}; {advice}") from error
        descriptor = Descriptor.of(media_type, content)
        with self._lock:
            self._read = {descriptor.digest: content}
        return descriptor

    def digest_of(self, tag: str) -> Digest:
        """Digest that the registry itself says `tag` has now: one HEAD request, of which nothing is verified.

        Raises `NotFound`, `Unreachable`, `Denied`, `InvalidContent`.
        """
        target = f"/{self._repository}/manifests/{tag}"
        with self._patiently("HEAD", target, SUCCESS | {404}, headers={"Accept": _ACCEPT}) as response:
            if response.status == 404:
                raise NotFound(f"{self}: no tag {tag!r}; push it")
            named = response.header("Docker-Content-Digest")
        return Digest.parse(named) if named else self.resolve(tag).digest

    def tags(self) -> list[str]:
        """See `Resolver`."""
        found: set[str] = set()
        for tags in self._tag_pages():
            if tags and found.issuperset(tags):
                raise InvalidContent(f"{self}: the registry's list of tags repeats; report this to its operator")
            found.update(tags)
        return sorted(found)

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...] | None:
        """See `Storage`."""
        if self._remembered.lacks_referrers():
            return None
        found = self._referrers(digest)
        self._remembered.keep_referrers(lacks=found is None)
        return found

    def _referrers(self, digest: Digest) -> tuple[Descriptor, ...] | None:
        found: list[Descriptor] = []
        try:
            for response, content in self._pages(f"/{self._repository}/referrers/{digest}"):
                # Some registries answer 200 to everything, with a page of their own.
                if response.content_type not in INDEX_TYPES:
                    return None
                found += Index.parse(content).manifests
        except NotFound:
            return None
        return tuple(found)

    def remove_tag(self, tag: str) -> None:
        """See `Remover`."""
        from lamella.layers.registry.removal import remove_tag

        remove_tag(self, self._name, tag, self._delete)

    def delete(self, digest: Digest) -> None:
        """See `Remover`."""
        from lamella.layers.registry.removal import refused

        if refusal := self._delete(str(digest)):
            raise refused(self._name, refusal)

    def _delete(self, name: str) -> str:
        """Delete a manifest or tag; return why the registry does not delete it, or an empty string."""
        from lamella.layers.registry.removal import REFUSED

        target = f"/{self._repository}/manifests/{name}"
        scopes = {f"repository:{self._repository}:delete,pull,push"}
        # A tag was resolved a moment ago: then 404 is the answer of a registry that takes digests alone.
        refused = REFUSED if ":" in name else REFUSED | {404}
        with self._patiently("DELETE", target, SUCCESS | REFUSED | {404}, scopes=scopes) as response:
            return reason_of(response) if response.status in refused else ""

    def close(self) -> None:
        """See `Storage`."""
        for client in [self._client, *(client for _, client in self._known_mirrors or ())]:
            client.close()

    def _tag_pages(self) -> Iterator[list[str]]:
        for _, content in self._pages(f"/{self._repository}/tags/list?n=1000"):
            try:
                tags = parse_object(content, "the list of tags").get("tags", "")
            except InvalidContent:
                tags = ""
            # distribution answers null for an empty list.
            if tags is not None and not isinstance(tags, list):
                raise InvalidContent(f"{self._name}: answer is not a list of tags; check for a proxy in between")
            yield [tag for tag in tags or () if is_tag(tag)]

    def _pages(self, target: str) -> Iterator[tuple[Response, bytes]]:
        def read(page: str) -> tuple[Response, bytes]:
            url = self._client.address.at(page)
            response = self._client.request("GET", url, self._repository, {200}, scopes=self._pulling())
            return response, response.body(MAX_DOCUMENT)

        return pages(
            lambda page: patiently(self._patience, lambda: read(page)), f"{self._client.path}{target}", str(self)
        )

    def _document(self, name: str) -> tuple[str, bytes]:
        target = f"/{self._repository}/manifests/{name}"
        for mirror, client in self._mirrors:
            if (mirror.resolves or ":" in name) and mirror.base not in self._dead:
                with self._forgiving(mirror):
                    return self._get_document(client, target + self._namespace, name)
        return patiently(self._patience, lambda: self._get_document(self._client, target, name))

    def _get_document(self, client: Client, target: str, name: str) -> tuple[str, bytes]:
        response = self._get(client, target, name, {"Accept": _ACCEPT})
        content = response.body(MAX_DOCUMENT)
        if response.content_type not in _DOCUMENTS:
            raise InvalidContent(
                f"{client.host}: answer of type {response.content_type[:100]!r} for the manifest {name} of "
                f"{self._repository}; check for a proxy or a login page in between"
            )
        if ":" in name and not _names(Digest.parse(name), content):
            raise InvalidContent(f"{client.host}: sent {Digest.of(content)} instead of {name}")
        # The registry's own digest: a reference that is pinned to another one could not be pulled
        # again.
        stored = response.header("Docker-Content-Digest")
        if ":" not in name and stored and not _names(Digest.parse(stored), content):
            raise InvalidContent(
                f"{client.host}: the manifest {name} of {self._repository} is {stored} in the registry and "
                f"{Digest.of(content)} here; check for a proxy in between that changes it"
            )
        return response.content_type, content

    def _get(self, client: Client, target: str, name: object, headers: dict[str, str]) -> Response:
        what = f"{self._repository}{'@' if ':' in str(name) else ':'}{name}"
        return client.request("GET", target, what, {200, 206}, scopes=self._pulling(), headers=headers)

    @property
    def _mirrors(self) -> list[tuple[Host, Client]]:
        with self._lock:
            if self._known_mirrors is None:
                self._known_mirrors = [(mirror, self._mirror_client(mirror)) for mirror in self._hosts.mirrors]
            return self._known_mirrors

    def _mirror_client(self, mirror: Host) -> Client:
        return mirror_client(mirror, trust=self._trust, patience=self._patience)

    @property
    def _namespace(self) -> str:
        # One mirror may serve many registries; ns names the one that is meant (containerd,
        # docs/hosts.md).
        return f"?ns={self._name}"

    @contextlib.contextmanager
    def _forgiving(self, mirror: Host) -> Iterator[None]:
        """Pass over a mirror that fails; leave out one that can't be reached from then on."""
        try:
            yield
        except Unreachable:
            self._dead.add(mirror.base)
        except LayersError:
            pass

    @contextlib.contextmanager
    def _blaming(self, used: list[Host]) -> Iterator[None]:
        """Blame wrong content on the mirrors that sent a part of it."""
        try:
            yield
        except FalseMirror:
            raise
        except (InvalidContent, UnsafeLayer) as error:
            if not used:
                raise
            self._dead.update(mirror.base for mirror in used)
            names = " and ".join(mirror.base for mirror in used)
            raise FalseMirror(f"{error}; sent by {names}: remove it from hosts.toml") from error

    def _push_document(self, descriptor: Descriptor, content: OpenContent, tag: str) -> None:
        target = f"/{self._repository}/manifests/{tag or descriptor.digest}"
        body = Body(lambda: opened(descriptor, content), descriptor.size)
        with self._patiently(
            "PUT",
            target,
            SUCCESS,
            scopes=self._pushing(),
            headers={"Content-Type": descriptor.media_type},
            body=body,
        ) as response:
            stored = response.header("Docker-Content-Digest")
            if stored and stored != str(descriptor.digest):
                raise InvalidContent(f"{self._name}: stored {descriptor.digest} as {escaped(stored, 100)}")
            # distribution-spec v1.1, "Pushing Manifests with Subject": only a registry with the API sends it.
            if response.header("OCI-Subject"):
                self._remembered.keep_referrers(lacks=False)

    def _patiently(
        self,
        method: str,
        target: str,
        expect: Collection[int],
        *,
        scopes: set[str] | None = None,
        headers: dict[str, str] | None = None,
        body: Body | None = None,
    ) -> Response:
        def ask() -> Response:
            return self._client.request(
                method,
                target,
                self._repository,
                expect,
                scopes=self._pulling() if scopes is None else scopes,
                headers=headers,
                body=body,
            )

        return patiently(self._patience, ask)

    def _pulling(self) -> set[str]:
        # Opened to write: one token serves every request.
        return self._pushing() if self._writes else {f"repository:{self._repository}:pull"}

    def _pushing(self) -> set[str]:
        return {f"repository:{self._repository}:pull,push"}


def _names(digest: Digest, content: bytes) -> bool:
    return hashlib.new(digest.algorithm, content).hexdigest() == digest.hex


class _Blaming:
    """A stream whose wrong content is blamed on the mirrors that sent it."""

    def __init__(self, stream: Reader, blaming: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self._stream = stream
        self._blaming = blaming

    def read(self, size: int = -1, /) -> bytes:
        with self._blaming():
            return self._stream.read(size)
