"""A repository of a registry, over HTTP. Source: distribution-spec v1.1."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin

from lamella.layers import credentials
from lamella.layers.download import Download
from lamella.layers.errors import Denied, InvalidContent, LayersError, NotFound
from lamella.layers.http import Body, Client, is_loopback
from lamella.layers.oci import INDEX_TYPES, MANIFEST_TYPES, MAX_DOCUMENT, Descriptor, Digest
from lamella.layers.retry import Patience, patiently
from lamella.layers.storage import VerifiedReader
from lamella.layers.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.layers.http import Response
    from lamella.layers.storage import Content, Reader

_DOCUMENTS = MANIFEST_TYPES | INDEX_TYPES
_ACCEPT = ", ".join(sorted(_DOCUMENTS))
_MAX_PAGES = 1000


class Registry:
    """A repository as a `Storage`, used from any number of threads. Plain HTTP on loopback or where `insecure`."""

    def __init__(
        self,
        registry: str,
        repository: str,
        *,
        insecure: bool = False,
        patience: Patience = Patience(),  # noqa: B008 - a frozen value
    ) -> None:
        self._name = registry
        self._repository = repository
        self._patience = patience
        host = "registry-1.docker.io" if registry == "docker.io" else registry
        scheme = "http" if insecure or is_loopback(host) else "https"
        self._client = Client(
            f"{scheme}://{host}/v2",
            tokens=lambda client: Tokens(client, registry, lambda: credentials.find(registry)),
        )
        self._lock = threading.Lock()
        self._sessions: dict[Digest, str] = {}
        self._read: dict[Digest, bytes] = {}

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

        def ask(headers: dict[str, str]) -> Response:
            return self._client.request(
                "GET", target, self._what(descriptor.digest), {200, 206}, scopes=self._pulling(), headers=headers
            )

        with contextlib.closing(Download(descriptor, ask, self._patience)) as download:
            yield VerifiedReader(download, descriptor)

    def exists(self, descriptor: Descriptor) -> bool:
        """See `Pusher`."""
        kind = "manifests" if descriptor.media_type in _DOCUMENTS else "blobs"
        target = f"/{self._repository}/{kind}/{descriptor.digest}"
        with self._patiently("HEAD", target, {200, 404}, headers={"Accept": _ACCEPT}) as response:
            there = response.header("Docker-Content-Digest")
            if response.status == 200 and there and there != str(descriptor.digest):
                raise InvalidContent(f"{self._name} has {there[:100]} where {descriptor.digest} was asked for")
            if response.status == 200 and response.content_type == "text/html":
                raise InvalidContent(f"{self._name} answered with a web page: is a proxy or a login page in between?")
            return response.status == 200

    def push(self, descriptor: Descriptor, content: Content, *, tag: str = "") -> None:
        """See `Pusher`."""
        if descriptor.media_type in _DOCUMENTS:
            self._push_document(descriptor, content, tag)
            return

        def upload() -> None:
            with self._lock:
                location = self._sessions.pop(descriptor.digest, "")
            location = location or self._begin()
            glue = "&" if "?" in location else "?"
            body = Body(lambda: self._opened(descriptor, content), descriptor.size)
            self._client.request(
                "PUT",
                f"{location}{glue}{urlencode({'digest': str(descriptor.digest)})}",
                self._what(descriptor.digest),
                {201},
                scopes=self._pushing(),
                headers={"Content-Type": "application/octet-stream"},
                body=body,
            ).close()

        patiently(self._patience, upload)

    def mount(self, descriptor: Descriptor, repository: str) -> bool:
        """See `Pusher`."""
        query = urlencode({"mount": str(descriptor.digest), "from": repository})
        target = f"/{self._repository}/blobs/uploads/?{query}"
        scopes = {*self._pushing(), f"repository:{repository}:pull"}
        try:
            with self._patiently("POST", target, {201, 202}, scopes=scopes) as response:
                if response.status == 202:
                    with self._lock:
                        self._sessions[descriptor.digest] = self._location(response)
                return response.status == 201
        except (Denied, NotFound):
            return False

    def resolve(self, name: str) -> Descriptor:
        """See `Resolver`. The document itself is kept, for the `fetch` that follows."""
        try:
            media_type, content = self._document(name)
        except NotFound as error:
            if ":" in name:
                raise
            tags: list[str] = []
            with contextlib.suppress(LayersError):
                tags = self.tags()
            there = f"it has {', '.join(tags[:10])}" if tags else "it has no tags"
            raise NotFound(f"{self._name}/{self._repository} has no tag {name!r}: {there}") from error
        descriptor = Descriptor.of(media_type, content)
        if ":" in name and name != str(descriptor.digest):
            raise InvalidContent(f"{self._name} answered with {descriptor.digest} where {name} was asked for")
        with self._lock:
            self._read = {descriptor.digest: content}
        return descriptor

    def tags(self) -> list[str]:
        """See `Resolver`."""
        found: set[str] = set()
        target = f"/{self._repository}/tags/list?n=1000"
        for _ in range(_MAX_PAGES):
            with self._patiently("GET", target, {200}) as response:
                links = response.header("Link")
                try:
                    found.update(str(tag) for tag in json.loads(response.body(MAX_DOCUMENT))["tags"] or ())
                except (ValueError, LookupError, TypeError):
                    raise InvalidContent(f"{self._name} answered with no list of tags") from None
            if 'rel="next"' not in links:
                break
            target = urljoin(response.url, links[links.index("<") + 1 : links.index(">")])
        return sorted(found)

    def close(self) -> None:
        """See `Storage`."""
        self._client.close()

    def _document(self, name: str) -> tuple[str, bytes]:
        target = f"/{self._repository}/manifests/{name}"

        def get() -> tuple[str, bytes]:
            response = self._client.request(
                "GET", target, self._what(name), {200}, scopes=self._pulling(), headers={"Accept": _ACCEPT}
            )
            if response.content_type not in _DOCUMENTS:
                response.close()
                raise InvalidContent(
                    f"{self._name} answered with {response.content_type[:100]!r} where the manifest {name} of "
                    f"{self._repository} belongs: is a proxy or a login page in between?"
                )
            return response.content_type, response.body(MAX_DOCUMENT)

        return patiently(self._patience, get)

    def _push_document(self, descriptor: Descriptor, content: Content, tag: str) -> None:
        target = f"/{self._repository}/manifests/{tag or descriptor.digest}"
        body = Body(lambda: self._opened(descriptor, content), descriptor.size)
        with self._patiently(
            "PUT", target, {201}, scopes=self._pushing(), headers={"Content-Type": descriptor.media_type}, body=body
        ) as response:
            there = response.header("Docker-Content-Digest")
            if there and there != str(descriptor.digest):
                raise InvalidContent(f"{self._name} took {descriptor.digest} for {there[:100]}")

    def _begin(self) -> str:
        target = f"/{self._repository}/blobs/uploads/"
        with self._client.request("POST", target, self._repository, {202}, scopes=self._pushing()) as response:
            return self._location(response)

    def _location(self, response: Response) -> str:
        location = response.header("Location")
        if not location:
            raise InvalidContent(f"{self._name} began an upload without saying where")
        return urljoin(response.url, location)

    @contextlib.contextmanager
    def _opened(self, descriptor: Descriptor, content: Content) -> Iterator[Reader]:
        with contextlib.closing(content()) as stream:
            yield VerifiedReader(stream, descriptor)

    def _patiently(
        self,
        method: str,
        target: str,
        expect: set[int],
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

    def _what(self, name: object) -> str:
        return f"{self._repository} {name}"

    def _pulling(self) -> set[str]:
        return {f"repository:{self._repository}:pull"}

    def _pushing(self) -> set[str]:
        return {f"repository:{self._repository}:pull,push"}
