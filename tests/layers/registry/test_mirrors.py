"""Pulling from the mirrors in containerd's hosts.toml, and from the registry itself last."""

from __future__ import annotations

import os
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import FalseMirror, NotFound
from lamella.layers.layout import OciLayout
from lamella.layers.oci import referrers
from lamella.layers.published.copy import copy
from lamella.layers.pulling import fetch as fetching
from lamella.layers.pulling.pull import pull
from lamella.layers.registry.repository import Registry
from lamella.layers.registry.retry import Patience
from lamella.layers.settings.trust import Trust
from lamella.layers.signing import cosign
from lamella.layers.store.store import Store
from support import tars
from support.homes import auth_of, fresh_home, know
from support.keys import key_pair
from support.published import blob, publish_layers, push_image
from support.registry_simulator import PASSWORD, USER, Fault, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamella.layers.oci.documents import Descriptor

SOON = Patience(tries=3, first=0.001)
BIG = os.urandom(2 << 20)


@pytest.fixture(autouse=True)
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fresh_home(tmp_path, monkeypatch)
    return tmp_path / "certs.d"


@pytest.fixture
def upstream() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as running:
        yield running


@pytest.fixture
def mirror() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as running:
        yield running


def configure(hosts: Path, registry: str, text: str) -> None:
    folder = hosts / registry
    folder.mkdir(parents=True)
    (folder / "hosts.toml").write_text(text)


def using(hosts: Path) -> Trust:
    return Trust(hosts_dir=str(hosts))


@contextmanager
def opened(simulator: RegistrySimulator, hosts: Path) -> Iterator[Registry]:
    registry = Registry(simulator.host, "team/envs", trust=using(hosts), patience=SOON)
    try:
        yield registry
    finally:
        registry.close()


def read(registry: Registry, descriptor: Descriptor) -> bytes:
    with registry.fetch(descriptor) as stream:
        return b"".join(iter(lambda: stream.read(100_000), b""))


def test_a_mirror_serves_its_content(hosts: Path, upstream: RegistrySimulator, mirror: RegistrySimulator) -> None:
    with opened(mirror, hosts) as there:
        manifest = push_image(there, [BIG], "v1")
    configure(hosts, upstream.host, f'[host."http://{mirror.host}"]\n')
    with opened(upstream, hosts) as registry:
        assert registry.resolve("v1") == manifest.descriptor
        assert read(registry, blob(BIG).descriptor) == BIG
    assert not upstream.requests
    # One mirror may serve many registries.
    assert all(f"ns={upstream.host}" in request.path for request in mirror.asked("GET"))


def test_content_that_a_mirror_lacks_comes_from_the_registry(
    hosts: Path, upstream: RegistrySimulator, mirror: RegistrySimulator
) -> None:
    configure(hosts, upstream.host, f'[host."http://{mirror.host}"]\n')
    with opened(upstream, hosts) as registry:
        manifest = push_image(registry, [BIG], "v1")
        assert registry.resolve("v1") == manifest.descriptor
        assert read(registry, blob(BIG).descriptor) == BIG
    assert mirror.asked("GET .*/blobs/")
    assert not mirror.asked("PUT|POST|HEAD")


def test_a_mirror_that_is_down_is_asked_once(
    hosts: Path, upstream: RegistrySimulator, mirror: RegistrySimulator
) -> None:
    mirror.faults = [Fault("GET", 99, 503)]
    configure(hosts, upstream.host, f'[host."http://{mirror.host}"]\n')
    with opened(upstream, hosts) as registry:
        push_image(registry, [b"one", b"two"], "v1")
        for content in (b"one", b"two"):
            assert read(registry, blob(content).descriptor) == content
    assert len(mirror.requests) == 1


def test_a_blob_that_breaks_off_at_a_mirror_continues_at_the_registry(
    hosts: Path, upstream: RegistrySimulator, mirror: RegistrySimulator
) -> None:
    mirror.add_blob("team/envs", BIG)
    mirror.faults = [Fault("GET", 1, cut=1 << 20)]
    configure(hosts, upstream.host, f'[host."http://{mirror.host}"]\n')
    with opened(upstream, hosts) as registry:
        blob(BIG).pushed(registry)
        assert read(registry, blob(BIG).descriptor) == BIG
    (request,) = upstream.asked("GET .*/blobs/")
    assert request.headers["Range"].startswith("bytes=")


def test_a_false_manifest_of_a_mirror_is_replaced_by_the_registry_s(
    hosts: Path, upstream: RegistrySimulator, mirror: RegistrySimulator
) -> None:
    with opened(mirror, hosts) as there:
        push_image(there, [b"one"])
    mirror.faults = [Fault("GET .*/manifests/", 1, body=b"{}")]
    configure(hosts, upstream.host, f'[host."http://{mirror.host}"]\n')
    with opened(upstream, hosts) as registry:
        manifest = push_image(registry, [b"one"])
        assert registry.resolve(str(manifest.descriptor.digest)) == manifest.descriptor


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET", 1, 200, {"Content-Type": "text/html"}, b"<html>log in</html>"),
        Fault("GET", 1, body=b"short"),
        Fault("GET", 1, 206, {"Content-Range": "bytes 5-9/10"}),
    ],
    ids=["web-page", "wrong-length", "another-part"],
)
def test_a_mirror_with_an_impossible_answer_is_passed_over(
    hosts: Path, upstream: RegistrySimulator, mirror: RegistrySimulator, fault: Fault
) -> None:
    mirror.add_blob("team/envs", BIG)
    mirror.faults = [fault]
    configure(hosts, upstream.host, f'[host."http://{mirror.host}"]\n')
    with opened(upstream, hosts) as registry:
        blob(BIG).pushed(registry)
        assert read(registry, blob(BIG).descriptor) == BIG
    assert len(mirror.requests) == 1


def test_a_false_blob_of_a_mirror_is_reported_once_and_then_read_from_the_registry(
    hosts: Path, upstream: RegistrySimulator, mirror: RegistrySimulator
) -> None:
    mirror.add_blob("team/envs", BIG)
    mirror.faults = [Fault("GET", 1, body=bytes(len(BIG)))]
    configure(hosts, upstream.host, f'[host."http://{mirror.host}"]\n')
    with opened(upstream, hosts) as registry:
        blob(BIG).pushed(registry)
        with pytest.raises(FalseMirror, match=rf"has other content.*; sent by http://{mirror.host}/v2: remove it"):
            read(registry, blob(BIG).descriptor)
        assert read(registry, blob(BIG).descriptor) == BIG
    assert len(mirror.requests) == 1


@pytest.mark.slow
@pytest.mark.parametrize("config_too", [False, True], ids=["layers", "config-too"])
@pytest.mark.parametrize("way", ["threads", "workers"])
@pytest.mark.parametrize("size", [100, 5 << 20], ids=["small", "large"])
def test_a_pull_replaces_false_content_of_a_mirror_by_the_registry_s(
    hosts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    upstream: RegistrySimulator,
    mirror: RegistrySimulator,
    way: str,
    size: int,
    config_too: bool,
) -> None:
    if way == "workers":
        monkeypatch.setattr(fetching, "LARGE", 1)
    made = [tars.layer(tars.tree({f"opt/env/{name}": os.urandom(size)}), package=name) for name in "abc"]
    with opened(upstream, hosts) as registry:
        publish_layers(registry, "v1", made)
    mirror.blobs, mirror.manifests, mirror.tags = deepcopy((upstream.blobs, upstream.manifests, upstream.tags))
    layers = {str(layer.descriptor.digest) for layer, _ in made}
    for digest, content in mirror.blobs["team/envs"].items():
        if config_too or digest in layers:
            mirror.blobs["team/envs"][digest] = content[: len(content) // 2] + bytes(len(content) - len(content) // 2)
    configure(hosts, upstream.host, f'[host."http://{mirror.host}"]\n')
    store = Store(str(tmp_path / "store"))
    pull(f"{upstream.host}/team/envs:v1", store=store, trust=using(hosts))
    assert set(store.layers()) == {layer.diff_id for layer, _ in made}
    assert mirror.asked("GET .*/blobs/")
    assert os.listdir(f"{store.path}/partial") == []


def test_a_copy_replaces_false_content_of_a_mirror_by_the_registry_s(
    hosts: Path, tmp_path: Path, upstream: RegistrySimulator, mirror: RegistrySimulator
) -> None:
    mirror.add_blob("team/envs", BIG)
    mirror.faults = [Fault("GET .*/blobs/", 1, body=bytes(len(BIG)))]
    with opened(upstream, hosts) as registry:
        push_image(registry, [BIG], "v1")
    configure(hosts, upstream.host, f'[host."http://{mirror.host}"]\n')
    copy(f"{upstream.host}/team/envs:v1", f"oci:{tmp_path}/layout:v1", trust=using(hosts))
    assert OciLayout(str(tmp_path / "layout")).exists(blob(BIG).descriptor)
    assert not mirror.faults[0].times


def test_a_mirror_does_not_get_the_registry_s_credentials(
    hosts: Path, tmp_path: Path, upstream: RegistrySimulator, mirror: RegistrySimulator
) -> None:
    know(tmp_path, upstream.host, auth_of(USER, PASSWORD))
    mirror.auth = "basic"
    configure(hosts, upstream.host, f'[host."http://{mirror.host}"]\n')
    with opened(upstream, hosts) as registry:
        push_image(registry, [b"one"], "v1")
        registry.resolve("v1")
    assert mirror.requests
    assert not [request for request in mirror.requests if "Authorization" in request.headers]


def test_a_mirror_that_may_not_resolve_is_asked_by_digest_only(
    hosts: Path, upstream: RegistrySimulator, mirror: RegistrySimulator
) -> None:
    configure(hosts, upstream.host, f'[host."http://{mirror.host}"]\ncapabilities = ["pull"]\n')
    with opened(upstream, hosts) as registry:
        manifest = push_image(registry, [b"one"], "v1")
        registry.resolve("v1")
        assert not mirror.requests
        registry.resolve(str(manifest.descriptor.digest))
        assert mirror.requests


def test_a_signature_that_a_mirror_lacks_is_kept(
    hosts: Path, tmp_path: Path, upstream: RegistrySimulator, mirror: RegistrySimulator
) -> None:
    keys = []
    for name in ("first", "theirs", "ours"):
        (tmp_path / name).mkdir()
        keys.append(key_pair(tmp_path / name))
    first, theirs, ours = keys
    reference = f"{upstream.host}/team/envs:v1"
    with opened(upstream, hosts) as registry:
        push_image(registry, [b"one"], "v1")
    cosign.sign(reference, first[0])
    mirror.blobs, mirror.manifests, mirror.tags = deepcopy((upstream.blobs, upstream.manifests, upstream.tags))
    cosign.sign(reference, theirs[0])
    configure(hosts, upstream.host, f'[host."http://{mirror.host}"]\n')
    cosign.sign(reference, ours[0], trust=using(hosts))
    (hosts / upstream.host / "hosts.toml").unlink()
    for _, public in keys:
        assert cosign.verify_signature(reference, public)


def test_a_copy_does_not_ask_mirrors_about_its_destination(
    hosts: Path, tmp_path: Path, upstream: RegistrySimulator, mirror: RegistrySimulator
) -> None:
    configure(hosts, upstream.host, f'[host."http://{mirror.host}"]\n')
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    subject = push_image(layout, [b"one"], "v1").descriptor
    referrers.attach(layout, subject, referrers.Artifact("application/vnd.cyclonedx+json", b"{}"))
    upstream.referrers_api = False
    copy(f"oci:{tmp_path}/layout:v1", f"{upstream.host}/team/envs:v1", trust=using(hosts))
    assert not mirror.requests


def test_a_missing_tag_is_reported_as_missing_in_the_registry(
    hosts: Path, upstream: RegistrySimulator, mirror: RegistrySimulator
) -> None:
    configure(hosts, upstream.host, f'[host."http://{mirror.host}"]\n')
    with (
        opened(upstream, hosts) as registry,
        pytest.raises(NotFound, match=f"{upstream.host}/team/envs: no tag 'v1'"),
    ):
        registry.resolve("v1")


def test_content_that_the_server_of_a_file_lacks_comes_from_the_registry(
    hosts: Path, upstream: RegistrySimulator, mirror: RegistrySimulator
) -> None:
    mirror.add_blob("team/envs", b"one")
    configure(hosts, upstream.host, f'server = "http://{mirror.host}"\n')
    with opened(upstream, hosts) as registry:
        manifest = push_image(registry, [b"one"], "v1")
        upstream.requests.clear()
        assert read(registry, blob(b"one").descriptor) == b"one"
        assert not upstream.requests
        assert registry.resolve("v1") == manifest.descriptor
