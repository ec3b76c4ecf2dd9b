"""A registry in memory behind a real HTTP server, with any fault of a poor or hostile network.

It implements distribution-spec v1.1 as strictly as a test needs: it takes a manifest only if its
blobs and children are there, and an upload only if its digest is right. `requests` holds the
requests that came; `faults` holds the faults to come.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import ssl
import struct
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

from support.servers import serving

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator, Mapping

USER, PASSWORD = "user", "password"
INDEX = "application/vnd.oci.image.index.v1+json"

_SMALL = 1 << 16


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    size: int


@dataclass
class Fault:
    """A fault of the next `times` requests whose `METHOD path` contains the pattern."""

    pattern: str
    times: int = 1
    status: int = 0
    """Answered instead of the usual action."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to the answer, replacing its own of the same name."""
    body: bytes | None = None
    """The answer's body instead of its own, with the right Content-Length."""
    cut: int | None = None
    """Bytes of the answer's body after which the connection ends, before Content-Length is reached.
    """
    drip: float = 0.0
    """Seconds between single bytes of the answer's body."""
    drip_head: float = 0.0
    """Seconds between single bytes of the answer's status and headers."""
    reset: bool = False
    """End the connection with a reset."""
    take: int | None = None
    """Bytes of the request's body that are read before the connection ends without an answer."""
    hints: int = 0
    """Answers of status 103 before the answer itself."""
    lost: bool = False
    """Carry out the request and send no answer."""
    meanwhile: Callable[[], object] | None = None
    """Called first, when the request has come."""


class RegistrySimulator:
    """See above. Set its attributes before the first request; `serving` runs it."""

    def __init__(self) -> None:
        self.host = ""
        self.blobs: dict[str, dict[str, bytes]] = {}
        """By repository and digest."""
        self.manifests: dict[str, dict[str, tuple[str, bytes]]] = {}
        """By repository and digest: media type and bytes."""
        self.tags: dict[str, dict[str, str]] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.ranges = True
        self.referrers_api = True
        self.begun, self.patched, self.uploaded, self.taken = 202, 202, 201, 201
        """The statuses of a new upload, of a part, of a complete blob, and of a manifest."""
        self.mounts = True
        self.checks = True
        """Whether a manifest is refused if what it names is not there."""
        self.deletes_tags = self.deletes_manifests = True
        """Whether it deletes by tag, as the specification has it, and by digest, as docker-registry does on request."""
        self.largest_request = 1 << 40
        """Bytes that one upload request may have; more is answered 413."""
        self.least_part = 0
        """OCI-Chunk-Min-Length, and a refusal of smaller parts but the last."""
        self.page = 1000
        self.auth = ""
        """`basic` or `bearer`, or neither."""
        self.realm = ""
        """The token server's URL, if not this server's own."""
        self.token_uses = 1 << 40
        """Requests that one token serves."""
        self.token_life: float | None = 300
        """`expires_in` of a token; None leaves it out."""
        self.tokens: dict[str, tuple[frozenset[str], int]] = {}
        """By token: its scopes and the uses that are left."""
        self.elsewhere = ""
        """The URL of a server to which requests for blobs are redirected."""
        self.peer: Callable[[object], object] | None = None
        """Called with the client's certificate, or None, at each request over TLS."""
        self.lock = threading.RLock()
        self._uploads: dict[str, bytearray] = {}

    def asked(self, pattern: str) -> list[Request]:
        """Return the requests whose `METHOD path` contains the pattern."""
        with self.lock:
            return [request for request in self.requests if re.search(pattern, f"{request.method} {request.path}")]

    def add_blob(self, repository: str, content: bytes) -> str:
        """Add a blob and return its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs.setdefault(repository, {})[digest] = content
        return digest

    @property
    def sessions(self) -> int:
        """How many upload sessions are open."""
        return len(self._uploads)

    def forget_uploads(self) -> None:
        """Lose every open upload session."""
        with self.lock:
            self._uploads.clear()

    @contextlib.contextmanager
    def serving(
        self, tls: ssl.SSLContext | None = None, address: str = "", port: int = 0
    ) -> Iterator[RegistrySimulator]:
        """Serve on `port` (default: a free one) of loopback, or of another `address`, as `host`."""
        simulator = self

        class Handler(_Handler):
            registry = simulator

        server = ThreadingHTTPServer((address or "127.0.0.1", port), Handler)
        server.daemon_threads = True
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        with serving(server) as served:
            self.host = f"{address or 'localhost'}:{served}"
            yield self


class _Handler(BaseHTTPRequestHandler):
    registry: RegistrySimulator
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.fault: Fault | None = None
        self.left = 0

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Write no log."""

    def handle(self) -> None:
        # A client may go away at any time.
        with contextlib.suppress(ConnectionError, ssl.SSLError, ValueError):
            super().handle()

    def do_GET(self) -> None:
        self._begin()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the library's names

    def _begin(self) -> None:
        registry = self.registry
        self.left = int(self.headers.get("Content-Length") or 0)
        asked = f"{self.command} {self.path}"
        with registry.lock:
            registry.requests.append(Request(self.command, self.path, dict(self.headers), self.left))
            self.fault = next((f for f in registry.faults if f.times > 0 and re.search(f.pattern, asked)), None)
            if self.fault:
                self.fault.times -= 1
        if registry.peer and isinstance(self.connection, ssl.SSLSocket):
            registry.peer(self.connection.getpeercert())
        if self.fault and self.fault.meanwhile:
            self.fault.meanwhile()
        if self.fault and self.fault.take is not None:
            self.rfile.read(min(self.fault.take, self.left))
            self._end_connection()
        elif self.fault and self.fault.status:
            self._answer(self.fault.status)
        else:
            self._route()

    def _route(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path == "/token":
            self._give_token(parse_qs(parts.query))
            return
        if not self._allowed(parts.path):
            return
        if parts.path in {"/v2", "/v2/"}:
            self._answer(200, body=b"{}", headers={"Content-Type": "application/json"})
        elif found := re.fullmatch(r"/v2/(.+)/blobs/uploads/([^/]*)", parts.path):
            self._upload(found[1], found[2], query)
        elif found := re.fullmatch(r"/v2/(.+)/blobs/([^/]+)", parts.path):
            self._blob(found[1], found[2])
        elif found := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", parts.path):
            self._manifest(found[1], found[2])
        elif found := re.fullmatch(r"/v2/(.+)/tags/list", parts.path):
            self._tags(found[1], query)
        elif found := re.fullmatch(r"/v2/(.+)/referrers/([^/]+)", parts.path):
            self._referrers(found[1], found[2])
        else:
            self._fail(404, "UNSUPPORTED")

    # Authentication

    def _allowed(self, path: str) -> bool:
        registry = self.registry
        header = self.headers.get("Authorization", "")
        if registry.auth == "basic" and header != _basic():
            self._fail(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="tests"'})
            return False
        if registry.auth == "bearer":
            scope = self._scope(path)
            with registry.lock:
                granted, uses = registry.tokens.get(header.removeprefix("Bearer "), (frozenset(), 0))
                if uses > 0 and (not scope or _covers(granted, scope)):
                    registry.tokens[header.removeprefix("Bearer ")] = (granted, uses - 1)
                    return True
            realm = registry.realm or f"http://{registry.host}/token"
            challenge = f'Bearer realm="{realm}",service="tests"' + (f',scope="{scope}"' if scope else "")
            self._fail(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})
            return False
        return True

    def _scope(self, path: str) -> str:
        found = re.match(r"/v2/(.+)/(blobs|manifests|tags|referrers)/", path)
        if not found:
            return ""
        actions = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}
        return f"repository:{found[1]}:{actions.get(self.command, 'pull,push')}"

    def _give_token(self, query: Mapping[str, list[str]]) -> None:
        registry = self.registry
        if self.command == "POST":
            form = parse_qs(self._body().decode())
            scopes = form.get("scope", [""])[0].split()
            known = form.get("refresh_token") == ["identity"] and form.get("grant_type") == ["refresh_token"]
        else:
            scopes = query.get("scope", [])
            known = self.headers.get("Authorization") in {_basic(), None}
        if not known:
            self._fail(401, "UNAUTHORIZED")
            return
        token = uuid.uuid4().hex
        with registry.lock:
            registry.tokens[token] = (frozenset(scopes), registry.token_uses)
        life = {} if registry.token_life is None else {"expires_in": registry.token_life}
        self._answer_json(200, {"token": token, **life})

    # Reading

    def _blob(self, repository: str, digest: str) -> None:
        content = self.registry.blobs.get(repository, {}).get(digest)
        if content is None:
            self._fail(404, "BLOB_UNKNOWN")
            return
        if self.registry.elsewhere and self.command == "GET":
            self._answer(307, {"Location": f"{self.registry.elsewhere}{self.path}"})
            return
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and self.registry.ranges:
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._answer(206, headers, content[start:])
        else:
            self._answer(200, headers, content)

    def _manifest(self, repository: str, name: str) -> None:
        registry = self.registry
        if self.command == "PUT":
            self._take_manifest(repository, name, self._body())
            return
        digest = registry.tags.get(repository, {}).get(name, name)
        if digest not in registry.manifests.get(repository, {}):
            self._fail(404, "MANIFEST_UNKNOWN")
            return
        if self.command == "DELETE":
            self._delete_manifest(repository, name, digest)
            return
        media_type, content = registry.manifests[repository][digest]
        self._answer(200, {"Content-Type": media_type, "Docker-Content-Digest": digest}, content)

    def _delete_manifest(self, repository: str, name: str, digest: str) -> None:
        registry = self.registry
        if not registry.deletes_manifests:
            self._fail(405, "UNSUPPORTED")
        elif ":" not in name and not registry.deletes_tags:
            self._fail(400, "DIGEST_INVALID")
        else:
            with registry.lock:
                if ":" in name:
                    del registry.manifests[repository][digest]
                tags = registry.tags.get(repository, {})
                for tag in [tag for tag, named in tags.items() if tag == name or (":" in name and named == digest)]:
                    del tags[tag]
            self._answer(202)

    def _take_manifest(self, repository: str, name: str, content: bytes) -> None:
        registry = self.registry
        document = json.loads(content)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        blobs = [entry["digest"] for entry in document.get("layers", [])]
        blobs += [document["config"]["digest"]] if "config" in document else []
        children = [entry["digest"] for entry in document.get("manifests", [])]
        with registry.lock:
            whole = not registry.checks or all(blob in registry.blobs.get(repository, {}) for blob in blobs)
            children = children if registry.checks else []
            if not whole or not all(child in registry.manifests.get(repository, {}) for child in children):
                self._fail(400, "MANIFEST_BLOB_UNKNOWN")
                return
            if ":" in name and name != digest:
                self._fail(400, "DIGEST_INVALID")
                return
            registry.manifests.setdefault(repository, {})[digest] = (self.headers["Content-Type"], content)
            if ":" not in name:
                registry.tags.setdefault(repository, {})[name] = digest
        there = {"Location": f"/v2/{repository}/manifests/{digest}", "Docker-Content-Digest": digest}
        if registry.referrers_api and "subject" in document:
            there["OCI-Subject"] = document["subject"]["digest"]
        self._answer(registry.taken, there)

    def _tags(self, repository: str, query: Mapping[str, str]) -> None:
        tags = sorted(self.registry.tags.get(repository, {}))
        later = [tag for tag in tags if tag > query.get("last", "")]
        page = later[: min(int(query.get("n", "1000")), self.registry.page)]
        headers = {}
        if len(page) < len(later):
            headers["Link"] = f'</v2/{repository}/tags/list?n={self.registry.page}&last={page[-1]}>; rel="next"'
        self._answer_json(200, {"name": repository, "tags": page or None}, headers)

    def _referrers(self, repository: str, digest: str) -> None:
        if not self.registry.referrers_api:
            self._fail(404, "UNSUPPORTED")
            return
        found = []
        for own, (media_type, content) in self.registry.manifests.get(repository, {}).items():
            document = json.loads(content)
            if document.get("subject", {}).get("digest") == digest:
                entry = {"mediaType": media_type, "digest": own, "size": len(content)}
                found.append(entry | {"artifactType": document.get("artifactType", "")})
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": found}
        self._answer_json(200, index, {"Content-Type": INDEX})

    # Writing

    def _upload(self, repository: str, session: str, query: Mapping[str, str]) -> None:
        registry = self.registry
        if self.command == "POST":
            self._begin_upload(repository, query)
            return
        if self.left > registry.largest_request:
            # Proxies do not wait for the body either.
            self._answer(413, {"Connection": "close"})
            return
        content = self._body()
        if self.command == "DELETE":
            self._answer(204 if registry._uploads.pop(session, None) is not None else 404)
            return
        with registry.lock:
            upload = registry._uploads.get(session)
            if upload is None:
                self._fail(404, "BLOB_UPLOAD_UNKNOWN")
                return
            if self.command == "PATCH" and self.headers.get("Content-Range", "").partition("-")[0] != str(len(upload)):
                self._fail(416, "BLOB_UPLOAD_INVALID")
                return
            upload += content
            if self.command == "PATCH":
                where = {"Location": f"/v2/{repository}/blobs/uploads/{session}", "Range": f"0-{len(upload) - 1}"}
                self._answer(registry.patched, where)
                return
            if f"sha256:{hashlib.sha256(upload).hexdigest()}" != query.get("digest"):
                self._fail(400, "DIGEST_INVALID")
                return
            registry.blobs.setdefault(repository, {})[query["digest"]] = bytes(upload)
            del registry._uploads[session]
        self._answer(registry.uploaded, {"Location": f"/v2/{repository}/blobs/{query['digest']}"})

    def _begin_upload(self, repository: str, query: Mapping[str, str]) -> None:
        registry = self.registry
        there = registry.blobs.get(query.get("from", ""), {}).get(query.get("mount", ""))
        if there is not None and registry.mounts:
            registry.blobs.setdefault(repository, {})[query["mount"]] = there
            self._answer(201, {"Location": f"/v2/{repository}/blobs/{query['mount']}"})
            return
        session = uuid.uuid4().hex
        with registry.lock:
            registry._uploads[session] = bytearray()
        headers = {"Location": f"/v2/{repository}/blobs/uploads/{session}?state=opaque"}
        if registry.least_part:
            headers["OCI-Chunk-Min-Length"] = str(registry.least_part)
        self._answer(registry.begun, headers)

    # Answers

    def _body(self) -> bytes:
        content = self.rfile.read(self.left)
        if len(content) < self.left:
            raise ConnectionResetError
        self.left = 0
        return content

    def _fail(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        self._answer_json(status, {"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}, headers)

    def _answer_json(self, status: int, value: object, headers: Mapping[str, str] | None = None) -> None:
        self._answer(status, {"Content-Type": "application/json"} | dict(headers or {}), json.dumps(value).encode())

    def _answer(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        fault = self.fault or Fault("")
        if self.left and self.left <= _SMALL:
            self._body()
        elif self.left:
            self.close_connection = True
        if fault.lost:
            self._end_connection()
            return
        body = body if fault.body is None else fault.body
        for _ in range(fault.hints):
            self.send_response_only(103)
            self.send_header("Link", "</style.css>; rel=preload")
            self.end_headers()
        self.send_response(status)
        for name, value in {**(headers or {}), **fault.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        out = self.wfile
        if fault.drip_head:
            self.wfile = cast("io.BufferedIOBase", _Dripping(out, fault.drip_head))
        try:
            self.end_headers()
        finally:
            self.wfile = out  # the server closes it, also after a client that did not wait
        if fault.drip:
            _Dripping(out, fault.drip).write(body)
        elif self.command != "HEAD":
            self.wfile.write(body if fault.cut is None else body[: fault.cut])
        if fault.cut is not None:
            self._end_connection()

    def _end_connection(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        if self.fault and self.fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)


class _Dripping:
    """Writes single bytes, `pause` seconds apart."""

    def __init__(self, out: io.BufferedIOBase, pause: float) -> None:
        self.out = out
        self.pause = pause

    def write(self, content: bytes) -> None:
        for byte in content:
            self.out.write(bytes([byte]))
            threading.Event().wait(self.pause)


def _basic() -> str:
    return "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def _covers(granted: frozenset[str], scope: str) -> bool:
    name, _, actions = scope.rpartition(":")
    for other in granted:
        theirs, _, allowed = other.rpartition(":")
        if theirs == name and set(actions.split(",")) <= set(allowed.split(",")):
            return True
    return False
