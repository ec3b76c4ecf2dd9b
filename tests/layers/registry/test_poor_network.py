"""A poor or hostile network, by the registry simulator: right bytes or a clear error."""

from __future__ import annotations

import hashlib
import io
import json
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest
import urllib3

from lamella.layers.errors import Denied, InvalidContent, LayersError, NotFound, Unreachable
from lamella.layers.oci.storage import fetch_document
from lamella.layers.registry import pages as paging
from lamella.layers.registry.failures import translated
from lamella.layers.registry.repository import Registry
from lamella.layers.registry.retry import Patience
from lamella.layers.settings.trust import Trust
from support.published import blob, push_image
from support.registry_simulator import INDEX, Fault, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.layers.oci.documents import Descriptor

SOON = Patience(tries=5, first=0.001)
BIG = os.urandom(3 << 20)


@pytest.fixture
def simulator() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as running:
        yield running


@pytest.fixture
def registry(simulator: RegistrySimulator) -> Iterator[Registry]:
    made = Registry(simulator.host, "team/envs", patience=SOON)
    yield made
    made.close()


@pytest.fixture
def small_parts(simulator: RegistrySimulator) -> Iterator[Registry]:
    made = Registry(simulator.host, "team/envs", patience=SOON, part=1 << 19)
    yield made
    made.close()


def read(registry: Registry, descriptor: Descriptor) -> bytes:
    with registry.fetch(descriptor) as stream:
        parts = []
        while part := stream.read(100_000):
            parts.append(part)
    return b"".join(parts)


# Reading


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 507, 520, 529])
def test_fetch_retries_if_the_registry_is_busy(simulator: RegistrySimulator, registry: Registry, status: int) -> None:
    thing = blob(b"content").pushed(registry)
    simulator.faults = [Fault("GET .*/blobs/", 2, status)]
    assert read(registry, thing.descriptor) == b"content"
    assert len(simulator.asked("GET .*/blobs/")) == 3


@pytest.mark.parametrize("status", [501, 505])
def test_an_unsupported_request_is_not_retried(simulator: RegistrySimulator, registry: Registry, status: int) -> None:
    thing = blob(b"content").pushed(registry)
    simulator.faults = [Fault("GET .*/blobs/", 9, status)]
    with pytest.raises(InvalidContent, match=f"answered {status} for team/envs@sha256:"):
        read(registry, thing.descriptor)
    assert len(simulator.asked("GET .*/blobs/")) == 1


def test_fetch_obeys_retry_after(simulator: RegistrySimulator, registry: Registry) -> None:
    thing = blob(b"content").pushed(registry)
    simulator.faults = [Fault("GET .*/blobs/", 1, 429, {"Retry-After": "86400"})]
    # A day is too long to wait: the header was understood if there is no second request.
    with pytest.raises(Unreachable, match="answered 429"):
        read(registry, thing.descriptor)
    assert len(simulator.asked("GET .*/blobs/")) == 1


def test_fetch_gives_up_on_a_registry_that_stays_down(simulator: RegistrySimulator, registry: Registry) -> None:
    thing = blob(b"content").pushed(registry)
    simulator.faults = [Fault("GET .*/blobs/", 99, 503)]
    with pytest.raises(Unreachable, match=r"localhost:\d+ could not be asked for team/envs@sha256:.*503.*later"):
        read(registry, thing.descriptor)
    assert len(simulator.asked("GET .*/blobs/")) == SOON.tries


@pytest.mark.parametrize("reset", [False, True])
def test_fetch_continues_after_a_broken_connection(
    simulator: RegistrySimulator, registry: Registry, reset: bool
) -> None:
    thing = blob(BIG).pushed(registry)
    simulator.faults = [Fault("GET .*/blobs/", 1, cut=1 << 20, reset=reset)]
    assert read(registry, thing.descriptor) == BIG
    first, second = simulator.asked("GET .*/blobs/")
    assert "Range" not in first.headers
    start = int(second.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= 1 << 20


def test_fetch_starts_again_if_the_registry_does_not_support_range(
    simulator: RegistrySimulator, registry: Registry
) -> None:
    simulator.ranges = False
    thing = blob(BIG).pushed(registry)
    simulator.faults = [Fault("GET .*/blobs/", 1, cut=1 << 20), Fault("GET .*/blobs/", 1, cut=2 << 20)]
    assert read(registry, thing.descriptor) == BIG
    assert len(simulator.asked("GET .*/blobs/")) == 3


def test_fetch_completes_a_long_blob_over_many_broken_connections(
    simulator: RegistrySimulator, registry: Registry
) -> None:
    thing = blob(BIG).pushed(registry)
    simulator.faults = [Fault("GET .*/blobs/", SOON.tries * 2, cut=200_000)]
    assert read(registry, thing.descriptor) == BIG


@pytest.mark.parametrize("each", [1, 1000])
def test_fetch_gives_up_after_connections_with_next_to_no_bytes(
    simulator: RegistrySimulator, registry: Registry, each: int
) -> None:
    thing = blob(BIG).pushed(registry)
    simulator.faults = [Fault("GET .*/blobs/", 999, cut=each)]
    with pytest.raises(Unreachable):
        read(registry, thing.descriptor)
    assert len(simulator.asked("GET .*/blobs/")) == SOON.tries


def test_fetch_closes_a_dripping_connection_and_continues(simulator: RegistrySimulator) -> None:
    registry = Registry(simulator.host, "team/envs", patience=Patience(first=0.001, window=0.05))
    thing = blob(BIG).pushed(registry)
    simulator.faults = [Fault("GET .*/blobs/", 1, drip=0.005)]
    assert read(registry, thing.descriptor) == BIG
    _, second = simulator.asked("GET .*/blobs/")
    assert second.headers["Range"].startswith("bytes=")
    registry.close()


@pytest.mark.slow
def test_an_answer_with_a_dripping_head_is_closed_and_retried(simulator: RegistrySimulator) -> None:
    registry = Registry(simulator.host, "team/envs", patience=Patience(first=0.001, window=0.05))
    manifest = push_image(registry, [b"content"], "v1")
    simulator.faults = [Fault("GET", 1, drip_head=0.005)]
    assert registry.resolve("v1") == manifest.descriptor
    assert len(simulator.asked("GET .*/manifests/")) == 2
    simulator.faults = [Fault("GET", 99, drip_head=0.005)]
    with pytest.raises(Unreachable, match=r"localhost:\d+: timed out; try again later"):
        registry.resolve("v1")
    registry.close()


def test_fetch_refuses_the_wrong_range(simulator: RegistrySimulator, registry: Registry) -> None:
    thing = blob(BIG).pushed(registry)
    simulator.faults = [
        Fault("GET .*/blobs/", 1, cut=1 << 20),
        Fault("GET .*/blobs/", 1, headers={"Content-Range": f"bytes 5-9/{len(BIG)}"}),
    ]
    with pytest.raises(InvalidContent, match="sent the wrong range of"):
        read(registry, thing.descriptor)


def test_fetch_refuses_other_bytes_of_the_right_length(simulator: RegistrySimulator, registry: Registry) -> None:
    thing = blob(b"content").pushed(registry)
    simulator.faults = [Fault("GET .*/blobs/", 1, body=b"CONTENT")]
    with pytest.raises(InvalidContent, match="has other content"):
        read(registry, thing.descriptor)


def test_fetch_refuses_more_bytes_than_there_should_be(simulator: RegistrySimulator, registry: Registry) -> None:
    thing = blob(b"content").pushed(registry)
    simulator.faults = [Fault("GET .*/blobs/", 1, body=b"content and more")]
    with pytest.raises(InvalidContent, match=r"has 16 bytes for sha256:.*, which should have 7"):
        read(registry, thing.descriptor)


@pytest.mark.parametrize("what", ["blobs", "manifests"])
def test_fetch_reports_a_web_page_of_a_proxy(simulator: RegistrySimulator, registry: Registry, what: str) -> None:
    manifest = push_image(registry, [b"content"], "v1")
    simulator.faults = [
        Fault(f"GET .*/{what}/", 1, 200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>log in</html>")
    ]
    descriptor = blob(b"content").descriptor if what == "blobs" else manifest.descriptor
    with pytest.raises(InvalidContent, match="check for a proxy or a login page in between"):
        read(registry, descriptor)


def test_resolve_refuses_a_wrong_content_type(simulator: RegistrySimulator, registry: Registry) -> None:
    push_image(registry, [b"content"], "v1")
    simulator.faults = [Fault("GET .*/manifests/", 1, headers={"Content-Type": "application/octet-stream"})]
    with pytest.raises(InvalidContent, match="'application/octet-stream' for the manifest v1 of team/envs"):
        registry.resolve("v1")


def test_resolve_refuses_a_manifest_that_the_digest_does_not_name(
    simulator: RegistrySimulator, registry: Registry
) -> None:
    manifest = push_image(registry, [b"content"])
    simulator.faults = [Fault("GET .*/manifests/", 1, body=b"{}")]
    with pytest.raises(InvalidContent, match=r"sent sha256:.* instead of sha256:"):
        registry.resolve(str(manifest.descriptor.digest))


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_resolve_refuses_a_manifest_that_a_proxy_rewrote(
    simulator: RegistrySimulator, registry: Registry, algorithm: str
) -> None:
    manifest = push_image(registry, [b"content"], "v1")
    ((_, content),) = simulator.manifests["team/envs"].values()
    stored = f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
    header = {"Docker-Content-Digest": stored}
    simulator.faults = [Fault("GET", 1, headers=header), Fault("GET", 1, headers=header, body=content + b"\n")]
    assert registry.resolve("v1") == manifest.descriptor
    with pytest.raises(InvalidContent, match=rf"the manifest v1 of team/envs is {stored} in the registry and sha256:"):
        registry.resolve("v1")


@pytest.mark.parametrize("header", ["nonsense", "sha256:0", "md5:" + "0" * 32])
def test_resolve_refuses_a_digest_that_is_not_one(
    simulator: RegistrySimulator, registry: Registry, header: str
) -> None:
    push_image(registry, [b"content"], "v1")
    simulator.faults = [Fault("GET", 1, headers={"Docker-Content-Digest": header})]
    with pytest.raises(InvalidContent, match="not a digest"):
        registry.resolve("v1")


def test_the_reason_of_a_registry_is_shown_escaped(simulator: RegistrySimulator, registry: Registry) -> None:
    said = json.dumps({"errors": [{"code": "DENIED", "message": "no\n\x1b[2Jright " + "x" * 1000}]}).encode()
    simulator.faults = [Fault("GET .*/manifests/", 1, 403, body=said)]
    with pytest.raises(Denied, match=r"denies team/envs:v1 \(DENIED no \\x1b\[2Jright x+…\); log in with") as caught:
        registry.resolve("v1")
    assert len(str(caught.value)) < 400


def test_an_endless_manifest_is_refused(simulator: RegistrySimulator, registry: Registry) -> None:
    push_image(registry, [b"content"], "v1")
    simulator.faults = [Fault("GET .*/manifests/", 1, body=b" " * (5 << 20))]
    with pytest.raises(InvalidContent, match=r"larger than 4\.2 MB"):
        registry.resolve("v1")


def test_exists_does_not_take_a_failure_for_absence(simulator: RegistrySimulator, registry: Registry) -> None:
    thing = blob(b"content")
    assert not registry.exists(thing.descriptor)
    for status in (429, 503):
        simulator.faults = [Fault("HEAD", 99, status)]
        with pytest.raises(Unreachable):
            registry.exists(thing.descriptor)
    simulator.faults = [Fault("HEAD", 1, 403)]
    with pytest.raises(Denied):
        registry.exists(thing.descriptor)


def test_exists_does_not_trust_a_server_that_answers_200_to_everything(
    simulator: RegistrySimulator, registry: Registry
) -> None:
    descriptor = blob(b"content").descriptor
    simulator.faults = [Fault("HEAD", 1, 200, {"Content-Type": "text/html"})]
    with pytest.raises(InvalidContent, match="answer is a web page; check for a proxy or a login page in between"):
        registry.exists(descriptor)
    simulator.faults = [Fault("HEAD", 1, 200, {"Docker-Content-Digest": "sha256:0"})]
    with pytest.raises(InvalidContent, match=r"has sha256:0 instead of sha256:"):
        registry.exists(descriptor)


@pytest.mark.parametrize("query", ["?X-Sig=a%2fb%3D%3d&e=&s=a+b~", "?sig=%C3%a9%25", "?"])
def test_a_signed_url_reaches_its_server_unchanged(
    simulator: RegistrySimulator, registry: Registry, query: str
) -> None:
    thing = blob(b"content").pushed(registry)
    with RegistrySimulator().serving() as storage:
        storage.faults = [Fault("GET", 1, 200, body=b"content")]
        path = f"/bucket/a%2fb//c/{query}"
        simulator.faults = [Fault("GET .*/blobs/", 1, 307, {"Location": f"http://{storage.host}{path}"})]
        assert read(registry, thing.descriptor) == b"content"
        (request,) = storage.requests
        assert request.path == path


def test_an_upload_s_location_reaches_the_registry_unchanged(simulator: RegistrySimulator, registry: Registry) -> None:
    simulator.faults = [Fault("POST", 1, 202, {"Location": "/v2/team/envs/blobs/uploads/x?_state=a%2fb%3d~"})]
    simulator.faults += [Fault("PUT", 1, 201)]
    thing = blob(b"content").pushed(registry)
    (request,) = simulator.asked("PUT")
    assert (
        request.path == f"/v2/team/envs/blobs/uploads/x?_state=a%2fb%3d~&digest=sha256%3A{thing.descriptor.digest.hex}"
    )


@pytest.mark.parametrize("hints", [1, 3])
def test_early_hints_do_not_end_a_request(simulator: RegistrySimulator, registry: Registry, hints: int) -> None:
    manifest = push_image(registry, [b"content"], "v1")
    simulator.faults = [Fault("GET", 9, hints=hints)]
    assert registry.resolve("v1") == manifest.descriptor
    assert read(registry, blob(b"content").descriptor) == b"content"


@pytest.mark.slow
def test_endless_hints_time_out(simulator: RegistrySimulator) -> None:
    registry = Registry(simulator.host, "team/envs", patience=Patience(tries=1, window=0.2))
    simulator.faults = [Fault("GET", 1, hints=1 << 30)]
    with pytest.raises(Unreachable, match="timed out"):
        registry.resolve("v1")
    registry.close()


def test_a_registry_that_is_down_is_reported_in_one_sentence() -> None:
    with RegistrySimulator().serving() as simulator:
        host = simulator.host
    registry = Registry(host, "team/envs", patience=SOON)
    with pytest.raises(Unreachable, match=rf"{host}: cannot connect: .*; check the registry's name, and that it is up"):
        registry.resolve("v1")
    registry.close()


def test_a_forgotten_registry_is_explained_if_docker_io_cannot_be_reached() -> None:
    connection = urllib3.connection.HTTPConnection("docker.io")
    with (
        pytest.raises(
            Unreachable, match=r"docker\.io: cannot connect: .*; a reference without a registry is one of docker\.io"
        ),
        translated("docker.io"),
    ):
        raise urllib3.exceptions.NewConnectionError(connection, "no such name")


# Slow if a resolver does not answer.
@pytest.mark.slow
def test_a_name_that_does_not_resolve_is_reported_in_one_sentence() -> None:
    registry = Registry("registry.invalid", "team/envs", patience=SOON)
    with pytest.raises(Unreachable, match=r"registry\.invalid: cannot connect: "):
        registry.resolve("v1")
    registry.close()


def test_tags_follow_links_from_page_to_page(simulator: RegistrySimulator, registry: Registry) -> None:
    simulator.page = 3
    simulator.tags["team/envs"] = {f"v{number}": "" for number in range(8)}
    assert registry.tags() == [f"v{number}" for number in range(8)]
    assert len(simulator.asked("GET .*/tags/list")) == 3


@pytest.mark.parametrize(
    "link",
    [
        '<{path}>; REL="Next"',
        "<{path}>; rel=next",
        '<{path}>; title="a, b; c=\\"<x>\\""; rel="prev next"',
        '</v2/other>; rel="prev", <{path}>; rel="next"',
        '<{path}>;rel="next";title*=UTF-8\'\'x, </v2/other>; rel="last"',
        "<{query}>; rel=next",
        '<https://internal.example:8443{path}>; rel="next"',
        '<http://169.254.169.254{path}#x>; rel="next"',
        '<//evil.example{path}>; rel="next"',
    ],
)
def test_tags_follow_every_spelling_of_a_link_at_the_registry_itself(
    simulator: RegistrySimulator, registry: Registry, link: str
) -> None:
    simulator.page = 3
    simulator.tags["team/envs"] = {f"v{number}": "" for number in range(5)}
    query = "?n=3&last=v2"
    simulator.faults = [
        Fault("GET .*n=1000", 1, headers={"Link": link.format(path=f"/v2/team/envs/tags/list{query}", query=query)})
    ]
    assert registry.tags() == [f"v{number}" for number in range(5)]
    assert [request.path for request in simulator.asked("GET")][1:] == [f"/v2/team/envs/tags/list{query}"]


@pytest.mark.parametrize("header", ["", "nonsense", "</v2/x>", '</v2/x>; rel="previous"', '</v2/x>; title="rel=next"'])
def test_tags_without_a_next_page_end(simulator: RegistrySimulator, registry: Registry, header: str) -> None:
    simulator.tags["team/envs"] = {"v1": ""}
    simulator.faults = [Fault("GET", 9, headers={"Link": header} if header else {})]
    assert registry.tags() == ["v1"]


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("/v2/team/envs/tags/list?n=1000", "list repeats a page"),
        ("/v2/team/envs/tags/list?n=1000&page=2", "list of tags repeats"),
        ("http://[bad/x", "list continues at an invalid URL"),
    ],
)
def test_an_endless_list_of_tags_is_refused(
    simulator: RegistrySimulator, registry: Registry, link: str, message: str
) -> None:
    simulator.tags["team/envs"] = {"v1": ""}
    simulator.faults = [Fault("GET", 9, headers={"Link": f"<{link}>; rel=next"})]
    with pytest.raises(InvalidContent, match=rf"^{simulator.host}/team/envs: the registry's {message}"):
        registry.tags()
    assert len(simulator.requests) <= 2


@pytest.mark.parametrize(("pages", "size"), [(20, 1), (1000, 100)])
def test_a_list_of_ever_new_pages_is_refused(
    simulator: RegistrySimulator, registry: Registry, monkeypatch: pytest.MonkeyPatch, pages: int, size: int
) -> None:
    monkeypatch.setattr(paging, "MAX_PAGES", pages)
    monkeypatch.setattr(paging, "MAX_BYTES", 20 * size)
    for number in range(60):
        body = json.dumps({"tags": [f"v{number}" + "x" * size]}).encode()
        link = f"</v2/team/envs/tags/list?page={number + 1}>; rel=next"
        simulator.faults.append(Fault("GET .*/tags/", 1, 200, {"Link": link}, body))
    with pytest.raises(InvalidContent, match=r"has no end after \d+ pages and \d+ bytes; report this to"):
        registry.tags()
    assert len(simulator.requests) <= 21


def test_a_page_that_breaks_off_is_retried(simulator: RegistrySimulator, registry: Registry) -> None:
    simulator.tags["team/envs"] = {"v1": "", "v2": ""}
    simulator.faults = [Fault("GET .*/tags/", 2, cut=5)]
    assert registry.tags() == ["v1", "v2"]


def test_invalid_tags_are_left_out_of_the_list(simulator: RegistrySimulator, registry: Registry) -> None:
    body = json.dumps({"tags": ["v1", 5, None, "a\x1b[2J", "x" * 129, "", ["v2"]]}).encode()
    simulator.faults = [Fault("GET .*/tags/", 1, 200, body=body)]
    assert registry.tags() == ["v1"]


@pytest.mark.parametrize("body", [b'{"tags": ["\\ud800"]}', b'{"tags": [], "tags": ["v1"]}', b"[" * 100_000, b"[]"])
def test_a_list_of_tags_that_two_readers_understand_differently_is_refused(
    simulator: RegistrySimulator, registry: Registry, body: bytes
) -> None:
    simulator.faults = [Fault("GET .*/tags/", 1, 200, body=body)]
    with pytest.raises(InvalidContent, match="answer is not a list of tags"):
        registry.tags()


def test_a_missing_tag_is_reported_with_the_existing_ones(simulator: RegistrySimulator, registry: Registry) -> None:
    push_image(registry, [b"content"], "v1")
    with pytest.raises(NotFound, match=rf"{simulator.host}/team/envs: no tag 'v2'; it has v1"):
        registry.resolve("v2")


HOSTILE = [
    *(
        Fault("GET .*/blobs/", 99, 307, {"Location": where})
        for where in (
            "http://[bad/x?sig=SECRET",
            "http://host:99999999/x?sig=SECRET",
            "http://exa mple.example/x?sig=SECRET",
            "http:///x?sig=SECRET",
            f"http://{'a' * 70}.example/x?sig=SECRET",
            "http://user:SECRET@localhost:1/x",
            "http://localhost:1/x?sig=SECRET",
        )
    ),
    Fault("GET .*/blobs/", 99, 429, {"Retry-After": "Mon, 01 Jan 99999999 00:00:00 GMT"}),
    Fault("GET .*/blobs/", 99, 429, {"Retry-After": "9" * 5000}),
    Fault("GET .*/blobs/", 99, 206, {"Content-Range": f"bytes 0-6/{'9' * 5000}"}, b"content"),
    Fault("GET .*/blobs/", 99, 206, {"Content-Range": f"bytes {'9' * 5000}-6/7"}, b"content"),
    Fault("GET .*/blobs/", 99, 401, {"WWW-Authenticate": 'Bearer realm="https://[bad/x"'}),
    Fault("GET .*/manifests/", 99, 403, body=b"[" * 16_000),
    Fault("GET .*/manifests/", 99, 200, {"Content-Type": INDEX}, b"[" * 200_000),
    Fault("GET .*/tags/", 99, 200, body=b"[" * 200_000),
    Fault("GET .*/tags/", 99, 200, {"Link": '<http://[bad>; rel="next"'}, b'{"tags": ["a"]}'),
    Fault("GET .*/referrers/", 99, 200, {"Content-Type": INDEX}, b"[" * 200_000),
    Fault("POST .*/blobs/", 99, 202, {"Location": "http://[bad/x?sig=SECRET"}),
    Fault("POST .*/blobs/", 99, 202, {"Location": "http://user:SECRET@localhost:1/x"}),
    Fault("GET /token", 99, 200, body=b"[" * 200_000),
    Fault("GET /token", 99, 200, body=b'{"token": "x", "expires_in": 1%s}' % (b"0" * 400)),
    Fault("GET /token", 99, 200, body=b'{"token": "x", "expires_in": NaN}'),
]


@pytest.mark.parametrize("fault", HOSTILE, ids=lambda fault: f"{fault.pattern} {list(fault.headers.values())}"[:60])
def test_a_hostile_answer_ends_in_an_error_of_ours_without_a_secret(simulator: RegistrySimulator, fault: Fault) -> None:
    patience = Patience(tries=2, first=0.001)
    before = Registry(simulator.host, "team/envs", patience=patience)
    manifest = push_image(before, [b"content"], "v1")
    before.close()
    registry = Registry(simulator.host, "team/envs", patience=patience)
    simulator.auth = "bearer" if "token" in fault.pattern else ""
    simulator.faults = [fault]
    said = []
    for act in (
        lambda: fetch_document(registry, registry.resolve("v1")),
        lambda: read(registry, blob(b"content").descriptor),
        registry.tags,
        lambda: registry.referrers(manifest.descriptor.digest),
        lambda: blob(b"other").pushed(registry),
    ):
        try:
            act()
        except LayersError as error:
            said.append(str(error))
    registry.close()
    assert simulator.asked(fault.pattern)
    assert "SECRET" not in str(said)


# Writing


def test_push_sends_a_blob_in_one_request(simulator: RegistrySimulator, registry: Registry) -> None:
    thing = blob(BIG).pushed(registry)
    assert simulator.blobs["team/envs"][str(thing.descriptor.digest)] == BIG
    assert [request.method for request in simulator.requests] == ["POST", "PUT"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT .*/blobs/", 2, 503),
        Fault("POST .*/blobs/", 2, 429),
        Fault("PUT .*/blobs/", 2, take=1 << 20),
        Fault("PUT .*/blobs/", 2, take=1 << 20, reset=True),
        Fault("PUT .*/blobs/", 2, lost=True, take=None),
    ],
    ids=["busy", "turned-away", "broken-off", "reset", "answer-lost"],
)
def test_push_retries_with_the_whole_blob(simulator: RegistrySimulator, registry: Registry, fault: Fault) -> None:
    simulator.faults = [fault]
    thing = blob(BIG).pushed(registry)
    assert simulator.blobs["team/envs"][str(thing.descriptor.digest)] == BIG


def test_push_does_not_send_again_a_blob_that_arrived(simulator: RegistrySimulator, registry: Registry) -> None:
    simulator.faults = [Fault("PUT .*/blobs/", 1, lost=True)]
    blob(BIG).pushed(registry)
    assert len(simulator.asked("PUT .*/blobs/")) == 1


def test_push_restarts_if_the_registry_lost_the_session(simulator: RegistrySimulator, registry: Registry) -> None:
    simulator.faults = [Fault("PUT .*/blobs/", 1, 404)]
    thing = blob(BIG).pushed(registry)
    assert simulator.blobs["team/envs"][str(thing.descriptor.digest)] == BIG
    assert len(simulator.asked("POST .*/blobs/")) == 2


@pytest.mark.parametrize(
    ("name", "status"),
    [
        *(("begun", status) for status in (200, 201, 204)),
        *(("patched", status) for status in (200, 201, 204)),
        *(("uploaded", status) for status in (200, 202, 204)),
        *(("taken", status) for status in (200, 202, 204)),
    ],
)
@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "parts"])
def test_push_takes_any_status_of_success(
    simulator: RegistrySimulator, small_parts: Registry, name: str, status: int, in_parts: bool
) -> None:
    setattr(simulator, name, status)
    simulator.largest_request = 1 << 20 if in_parts else 1 << 30
    simulator.mounts = False
    assert not small_parts.mount(blob(BIG).descriptor, "team/other")
    manifest = push_image(small_parts, [BIG], "v1")
    assert simulator.tags["team/envs"]["v1"] == str(manifest.descriptor.digest)
    assert BIG in simulator.blobs["team/envs"].values()


@pytest.mark.parametrize("status", [300, 304, 400, 409])
def test_push_does_not_take_other_statuses_for_a_manifest(
    simulator: RegistrySimulator, registry: Registry, status: int
) -> None:
    simulator.faults = [Fault("PUT .*/manifests/", 9, status)]
    with pytest.raises(InvalidContent, match=f"answered {status}"):
        push_image(registry, [b"content"], "v1")


def test_push_sends_parts_if_the_whole_is_refused(simulator: RegistrySimulator, small_parts: Registry) -> None:
    simulator.largest_request = 1 << 20
    thing = blob(BIG).pushed(small_parts)
    assert simulator.blobs["team/envs"][str(thing.descriptor.digest)] == BIG
    assert len(simulator.asked("PATCH")) == 6


def test_push_sends_parts_as_large_as_the_registry_requires(
    simulator: RegistrySimulator, small_parts: Registry
) -> None:
    simulator.largest_request = 1 << 20
    simulator.least_part = 1 << 20
    thing = blob(BIG).pushed(small_parts)
    assert simulator.blobs["team/envs"][str(thing.descriptor.digest)] == BIG
    assert len(simulator.asked("PATCH")) == 3


def test_push_reports_a_part_that_is_too_large(simulator: RegistrySimulator, small_parts: Registry) -> None:
    simulator.largest_request = 1 << 10
    with pytest.raises(
        InvalidContent, match=r"answered 413 for team/envs@sha256:.*: request too large; raise .* nginx's"
    ):
        blob(BIG).pushed(small_parts)


def test_push_to_a_read_only_registry_is_reported(simulator: RegistrySimulator, registry: Registry) -> None:
    simulator.faults = [Fault("POST", 9, 405)]
    with pytest.raises(
        Denied, match=r"read-only, it answered 405 for team/envs@sha256:.*; use a registry that takes pushes"
    ):
        blob(b"content").pushed(registry)


def test_push_refuses_content_that_is_not_the_descriptors(simulator: RegistrySimulator, registry: Registry) -> None:
    with pytest.raises(InvalidContent, match="has other content"):
        registry.push(blob(b"content").descriptor, blob(b"CONTENT").opened)
    assert not simulator.blobs.get("team/envs")


def test_push_of_a_manifest_without_its_blobs_leaves_no_tag(simulator: RegistrySimulator, registry: Registry) -> None:
    other = Registry(simulator.host, "team/other", patience=SOON)
    manifest = push_image(other, [b"content"])
    other.close()
    with pytest.raises(InvalidContent, match="MANIFEST_BLOB_UNKNOWN"):
        manifest.pushed(registry, "v1")
    assert not simulator.tags.get("team/envs")


def test_push_of_a_manifest_is_retried(simulator: RegistrySimulator, registry: Registry) -> None:
    simulator.faults = [Fault("PUT .*/manifests/", 2, 502), Fault("PUT .*/manifests/", 1, lost=True)]
    manifest = push_image(registry, [b"content"], "v1")
    assert simulator.tags["team/envs"]["v1"] == str(manifest.descriptor.digest)


def test_a_registry_that_stops_before_the_manifest_has_no_tag(simulator: RegistrySimulator, registry: Registry) -> None:
    simulator.faults = [Fault("PUT .*/manifests/", 99, 503)]
    with pytest.raises(Unreachable):
        push_image(registry, [b"content"], "v1")
    assert not simulator.tags.get("team/envs")


def test_mount_takes_a_blob_without_sending_it(simulator: RegistrySimulator, registry: Registry) -> None:
    digest = simulator.add_blob("team/other", b"content")
    thing = blob(b"content")
    assert registry.mount(thing.descriptor, "team/other")
    assert simulator.blobs["team/envs"][digest] == b"content"
    assert not simulator.asked("PUT")


def test_a_mount_that_failed_leaves_a_session_for_the_push(simulator: RegistrySimulator, registry: Registry) -> None:
    simulator.mounts = False
    thing = blob(b"content")
    assert not registry.mount(thing.descriptor, "team/other")
    thing.pushed(registry)
    assert simulator.blobs["team/envs"][str(thing.descriptor.digest)] == b"content"
    assert len(simulator.asked("POST")) == 1


def test_a_lost_session_of_a_mount_is_replaced(simulator: RegistrySimulator, registry: Registry) -> None:
    simulator.mounts = False
    thing = blob(b"content")
    assert not registry.mount(thing.descriptor, "team/other")
    simulator.forget_uploads()
    thing.pushed(registry)
    assert simulator.blobs["team/envs"][str(thing.descriptor.digest)] == b"content"


def test_a_denied_mount_returns_false(simulator: RegistrySimulator, registry: Registry) -> None:
    simulator.faults = [Fault("POST", 1, 403)]
    assert not registry.mount(blob(b"content").descriptor, "team/secret")


def test_unreadable_content_is_not_retried(
    simulator: RegistrySimulator, registry: Registry, tmp_path: os.PathLike[str]
) -> None:
    gone = os.path.join(tmp_path, "gone")
    with pytest.raises(LayersError, match=r"cannot read sha256:.* to upload it: No such file or directory"):
        registry.push(blob(b"content").descriptor, partial(io.FileIO, gone))
    assert not simulator.asked("PUT")


def test_referrers_without_the_api_return_nothing(simulator: RegistrySimulator, registry: Registry) -> None:
    manifest = push_image(registry, [b"content"])
    assert registry.referrers(manifest.descriptor.digest) == ()
    simulator.referrers_api = False
    assert registry.referrers(manifest.descriptor.digest) is None
    simulator.faults = [Fault("GET .*/referrers/", 1, 200, {"Content-Type": "text/html"}, b"<html>")]
    assert registry.referrers(manifest.descriptor.digest) is None


def test_the_media_type_of_an_index_is_the_registry_s(registry: Registry, simulator: RegistrySimulator) -> None:
    simulator.manifests["team/envs"] = {}
    content = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % INDEX.encode()
    simulator.faults = [Fault("GET .*/manifests/", 1, 200, {"Content-Type": INDEX}, content)]
    assert registry.resolve("v1").media_type == INDEX


# Proxies


def test_a_proxy_is_used_if_the_environment_names_one(
    simulator: RegistrySimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://ada:secret@{simulator.host}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    digest = simulator.add_blob("team/envs", b"content")
    registry = Registry("registry.invalid", "team/envs", trust=Trust(insecure=True), patience=SOON)
    assert read(registry, blob(b"content").descriptor) == b"content"
    registry.close()
    (request,) = simulator.requests
    assert request.path == f"http://registry.invalid/v2/team/envs/blobs/{digest}"
    assert request.headers["proxy-authorization"].startswith("Basic ")


def test_no_proxy_is_used_for_loopback(
    simulator: RegistrySimulator, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    thing = blob(b"content").pushed(registry)
    assert read(registry, thing.descriptor) == b"content"


def test_a_proxy_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://ada:secret@localhost:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    registry = Registry("registry.invalid", "team/envs", trust=Trust(insecure=True), patience=SOON)
    with pytest.raises(
        Unreachable, match=r"registry\.invalid: cannot connect through the proxy localhost:1; check"
    ) as caught:
        registry.tags()
    assert "secret" not in str(caught.value)
    registry.close()
