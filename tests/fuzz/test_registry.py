"""A registry that answers anything: every operation ends, with a result or one sentence."""

from __future__ import annotations

import contextlib
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.layers.errors import LayersError
from lamella.layers.oci.documents import INDEX, LAYER_TAR, MANIFEST, Descriptor, Digest
from lamella.layers.registry.repository import Registry
from lamella.layers.registry.retry import Patience
from support.published import push_environment
from support.registry_simulator import Fault, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

TEXTS = st.one_of(
    st.sampled_from(
        [
            "", "0", "-1", "9" * 5000, "bytes 0-1/2", "bytes */0", "bytes=0-", "application/json", INDEX, MANIFEST, "x/y; z",
            "sha256:" + "0" * 64, "sha256:x", "Bearer", 'Bearer realm="', 'Bearer realm="http://[::1"', "Basic", "/", "//", "http://[",
            "https://localhost:0/x", "http://localhost:99999/", "</v2/x>; rel=next", "<>; rel=\"next\"", "<//[>; rel=next", "gzip",
            "chunked", "Thu, 99 Foo 99999 99:99:99 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", "\x1b[2J", "a,b,c", '"', "%zz", "é",
        ]
    ),
    st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=30),
)  # fmt: skip
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Content-Type", "Docker-Content-Digest", "Location", "Link", "WWW-Authenticate", "Retry-After", "Content-Range",
            "Range", "OCI-Chunk-Min-Length", "OCI-Subject", "Content-Encoding", "Docker-Upload-UUID", "Etag",
        ]
    ),
    TEXTS,
    max_size=3,
)  # fmt: skip
BODIES = st.one_of(
    st.none(),
    st.sampled_from(
        [
            b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"tags": null}', b'{"tags": 5}', b'{"tags": [5]}',
            b'{"tags": ["\\ud800"]}', b'{"errors": 5}', b'{"errors": [{"code": {}, "message": ["\\u001b[2J"]}]}',
            b'{"token": 5}', b'{"token": "a\\r\\nb"}', b'{"token": "\\ud800"}', b'{"token": "t", "expires_in": "soon"}',
            b'{"token": "t", "expires_in": 1e999}', b'{"token": "t", "expires_in": -1}', b'{"manifests": []}', b'{"manifests": 5}',
            b'{"schemaVersion": 1, "mediaType": 5}', b'{"mediaType": "a\\nb", "manifests": []}', b"9" * 5000,
        ]
    ),
    st.binary(max_size=100),
)  # fmt: skip
FAULTS = st.lists(
    st.builds(
        Fault,
        st.sampled_from(
            ["", "GET ", "HEAD ", "POST ", "PUT ", "PATCH ", "manifests", "blobs", "tags", "referrers", "token"]
        ),
        st.integers(1, 3),
        st.sampled_from(
            [0, 200, 200, 201, 202, 204, 206, 300, 301, 307, 308, 400, 401, 403, 404, 405, 413, 416, 429, 500, 503]
        ),
        HEADERS,
        BODIES,
        st.sampled_from([None, None, 0, 5]),
    ),
    min_size=1,
    max_size=3,
)
PATIENCE = Patience(tries=2, first=0, longest=0, window=2)


@pytest.fixture(scope="module")
def simulator() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as simulator:
        registry = Registry(simulator.host, "team/envs")
        push_environment(registry)
        registry.close()
        yield simulator


# Each example asks over HTTP, ten times and more.
@settings(max_examples=settings().max_examples // 4)
@given(FAULTS, st.sampled_from(["", "bearer", "basic"]))
def test_any_answer_is_a_result_or_a_sentence(simulator: RegistrySimulator, faults: list[Fault], auth: str) -> None:
    content = b"content"
    blob = Descriptor.of(LAYER_TAR, content)
    nothing = Descriptor(LAYER_TAR, Digest.of(b"nothing"), 7)
    with simulator.lock:
        simulator.auth = auth
        simulator.blobs["team/envs"].pop(str(blob.digest), None)
    registry = Registry(simulator.host, "team/envs", patience=PATIENCE)
    try:
        for action in (
            lambda: registry.resolve("v1"),
            lambda: read(registry, registry.resolve("v1")),
            registry.tags,
            lambda: registry.referrers(blob.digest),
            lambda: registry.exists(blob),
            lambda: registry.push(blob, partial(BytesIO, content)),
            lambda: registry.mount(blob, "team/other"),
            lambda: read(registry, blob),
            lambda: read(registry, nothing),
        ):
            with simulator.lock:
                simulator.faults = [
                    Fault(each.pattern, each.times, each.status, waiting_little(each.headers), each.body, each.cut)
                    for each in faults
                ]
            with contextlib.suppress(LayersError):
                action()
    finally:
        registry.close()


def read(registry: Registry, descriptor: Descriptor) -> bytes:
    with registry.fetch(descriptor) as stream:
        return b"".join(iter(lambda: stream.read(1 << 16), b""))


def waiting_little(headers: dict[str, str] | object) -> dict[str, str]:
    assert isinstance(headers, dict)
    # The client waits as long as Retry-After asks.
    return {
        name: "0" if name == "Retry-After" and text.isdecimal() and len(text) < 4 else text
        for name, text in headers.items()
    }
