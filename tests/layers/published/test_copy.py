"""Copies of whole indexes between any two storages, and what they do not move."""

from __future__ import annotations

import subprocess
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest

from lamella.layers.errors import InvalidContent, NotFound, Unreachable
from lamella.layers.layout import OciLayout
from lamella.layers.oci import referrers
from lamella.layers.oci.documents import INDEX, LAYER_TAR, Descriptor, Digest, Index
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.published import environment as published
from lamella.layers.published.copy import copy
from lamella.layers.published.tree import walk
from lamella.layers.published.validate import verify_reference
from lamella.layers.registry.repository import Registry
from lamella.layers.settings.trust import Trust
from lamella.layers.signing import cosign
from support.distribution import distribution
from support.engines import need
from support.keys import key_pair
from support.published import AMD64, ARM64, Blob, blob, push_environment, push_image
from support.registry_simulator import Fault, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def simulator() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as running:
        yield running


@pytest.fixture
def layout(tmp_path: Path) -> str:
    folder = tmp_path / "layout"
    push_environment(OciLayout(str(folder), create=True), "v1", [AMD64, ARM64])
    return f"oci:{folder}:v1"


@pytest.mark.engine
def test_a_copy_to_a_registry_and_back_is_the_same(tmp_path: Path, layout: str) -> None:
    with distribution() as host:
        there = copy(layout, f"{host}/team/envs:v2")
        # Two packages, one config for both of each platform's manifests.
        assert (there.sent, there.mounted, there.present) == (4, 0, 0)
        back = copy(there.reference, f"oci:{tmp_path}/back:v3")
    assert there.reference.partition("@")[2] == back.reference.partition("@")[2]
    found = published.read_index(OciLayout(f"{tmp_path}/back"), Reference.parse(f"oci:{tmp_path}/back:v3"), Trust())
    assert [environment.platform for environment in found.environments] == [AMD64, ARM64]


@pytest.mark.engine
def test_skopeo_copies_a_copy(tmp_path: Path, layout: str) -> None:
    with distribution() as host:
        copy(layout, f"{host}/team/envs:v1")
        command = [need("skopeo"), "--insecure-policy", "copy", "--all", "--preserve-digests", "--src-tls-verify=false"]
        subprocess.run([*command, f"docker://{host}/team/envs:v1", f"oci:{tmp_path}/theirs:v1"], check=True)
    ours = OciLayout(layout.split(":")[1]).resolve("v1")
    assert OciLayout(f"{tmp_path}/theirs").resolve("v1").digest == ours.digest


def test_existing_content_is_not_sent(simulator: RegistrySimulator, layout: str) -> None:
    copy(layout, f"{simulator.host}/team/envs:v1")
    simulator.requests.clear()
    again = copy(layout, f"{simulator.host}/team/envs:v2")
    assert (again.sent, again.present, again.moved) == (0, 4, 0)
    assert not simulator.asked("PUT .*/blobs/|POST|GET .*/blobs/")
    # Each part is asked for, and only the new tag is sent.
    assert [request.path for request in simulator.asked("PUT")] == ["/v2/team/envs/manifests/v2"]


@pytest.mark.parametrize("api", [True, False])
@pytest.mark.slow
def test_a_copy_over_a_broken_tag_sends_each_lost_part(
    tmp_path: Path, simulator: RegistrySimulator, layout: str, api: bool
) -> None:
    simulator.referrers_api = api
    here = OciLayout(layout.split(":")[1])
    cosign.sign(layout, key_pair(tmp_path)[0])
    referrers.attach(here, here.resolve("v1"), referrers.Artifact("application/vnd.example.scan+json", b"{}"))
    there = f"{simulator.host}/team/envs:v1"
    copy(layout, there)
    assert verify_reference(there).faults == ()
    index = str(here.resolve("v1").digest)
    held: list[dict[str, Any]] = [simulator.blobs["team/envs"], simulator.manifests["team/envs"]]
    lost = [(part, digest) for part in held for digest in part if digest != index]
    for part, digest in lost:
        del part[digest]
        copy(layout, there)
        assert (digest, verify_reference(there).faults) == (digest, ())
    # All but the tag's own index at once.
    for part, digest in lost:
        del part[digest]
    copy(layout, there)
    assert verify_reference(there).faults == ()


@pytest.mark.slow
def test_a_copy_over_a_broken_layout_sends_each_lost_part(tmp_path: Path, layout: str) -> None:
    there = f"oci:{tmp_path}/there:v1"
    copy(layout, there)
    for path in sorted((tmp_path / "there/blobs/sha256").iterdir()):
        for damage in (b"", b"short"):
            path.write_bytes(damage) if damage else path.unlink()
            copy(layout, there)
            assert verify_reference(there, deep=True).faults == ()


def test_a_part_that_the_source_lost_is_named_with_the_push_that_restores_it(tmp_path: Path, layout: str) -> None:
    (tmp_path / "layout/blobs/sha256" / Digest.of(b"one").hex).unlink()
    with pytest.raises(NotFound, match=rf"package one is lost .*; restore it .* lamella push oci:{tmp_path}/layout:v1"):
        copy(layout, f"oci:{tmp_path}/there:v1")
    with pytest.raises(NotFound, match=r"no tag 'v1'|no such OCI layout"):
        OciLayout(f"{tmp_path}/there").resolve("v1")


def test_only_missing_blobs_are_sent(simulator: RegistrySimulator, layout: str) -> None:
    simulator.add_blob("team/envs", b"one")
    done = copy(layout, f"{simulator.host}/team/envs:v1")
    assert (done.sent, done.present) == (3, 1)


def test_another_repository_of_the_registry_lends_its_blobs(simulator: RegistrySimulator, layout: str) -> None:
    copy(layout, f"{simulator.host}/team/envs:v1")
    simulator.requests.clear()
    done = copy(f"{simulator.host}/team/envs:v1", f"{simulator.host}/team/other:v1")
    assert (done.sent, done.mounted, done.moved) == (0, 4, 0)
    assert not simulator.asked("PUT .*/blobs/|GET .*/blobs/")


@pytest.mark.parametrize("api", [True, False])
@pytest.mark.slow
def test_signatures_and_referrers_come_along_before_the_tag(
    tmp_path: Path, simulator: RegistrySimulator, layout: str, api: bool
) -> None:
    simulator.referrers_api = api
    private, public = key_pair(tmp_path)
    cosign.sign(layout, private)
    here = OciLayout(layout.split(":")[1])
    subject = here.resolve("v1")
    sbom = referrers.attach(here, subject, referrers.Artifact("application/vnd.cyclonedx+json", b"{}"))
    copy(layout, f"{simulator.host}/team/envs:v1")
    assert simulator.asked("PUT .*/manifests/")[-1].path.endswith("/manifests/v1")
    assert cosign.verify_signature(f"{simulator.host}/team/envs:v1", public)
    registry = Registry(simulator.host, "team/envs")
    assert [entry.digest for entry in referrers.referrers(registry, subject)] == [sbom.digest]
    registry.close()
    # And on, from a registry.
    copy(f"{simulator.host}/team/envs:v1", f"oci:{tmp_path}/carried:v1")
    assert cosign.verify_signature(f"oci:{tmp_path}/carried:v1", public)
    assert len(referrers.referrers(OciLayout(f"{tmp_path}/carried"), subject)) == 1


@pytest.mark.parametrize("api", [True, False])
def test_attachments_of_an_image_and_cosigns_other_tags_come_along(
    tmp_path: Path, simulator: RegistrySimulator, layout: str, api: bool
) -> None:
    simulator.referrers_api = api
    here = OciLayout(layout.split(":")[1])
    root = here.resolve("v1")
    child = Index.parse(fetch_document(here, root)).manifests[0]
    scan = referrers.attach(here, child, referrers.Artifact("application/vnd.example.scan+json", b"{}"))
    kinds = [f"sha256-{root.digest.hex}.{kind}" for kind in ("att", "sbom")]
    for tag in kinds:
        push_image(here, [tag.encode()], tag)
    copy(layout, f"{simulator.host}/team/envs:v1")
    registry = Registry(simulator.host, "team/envs")
    assert [entry.digest for entry in referrers.referrers(registry, child)] == [scan.digest]
    registry.close()
    assert set(kinds) < set(simulator.tags["team/envs"])


@pytest.mark.slow
def test_a_dry_run_says_what_would_move_and_writes_nothing(
    tmp_path: Path, simulator: RegistrySimulator, layout: str
) -> None:
    here = OciLayout(layout.split(":")[1])
    for content in (b"{}", b"[]"):
        referrers.attach(here, here.resolve("v1"), referrers.Artifact("application/vnd.example.scan+json", content))
    simulator.add_blob("team/envs", b"one")
    for source, destination in (
        (layout, f"{simulator.host}/team/envs:v1"),
        (layout, f"oci:{tmp_path}/new:v1"),
        (f"{simulator.host}/team/envs:v1", f"{simulator.host}/team/other:v1"),
    ):
        simulator.requests.clear()
        made = (tmp_path / "new").exists()
        would = copy(source, destination, dry_run=True)
        assert not simulator.asked("PUT|POST|PATCH")
        assert (tmp_path / "new").exists() == made
        assert would == copy(source, destination)
        assert would.sent or would.mounted


@pytest.mark.slow
def test_insecure_is_meant_for_the_destination(monkeypatch: pytest.MonkeyPatch, simulator: RegistrySimulator) -> None:
    with RegistrySimulator().serving() as between:
        # The proxy in between sees each request in plain HTTP.
        monkeypatch.setenv("http_proxy", f"http://{between.host}")
        monkeypatch.setenv("https_proxy", "http://localhost:1")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(Unreachable, match=r"registry\.invalid: cannot connect"):
            copy("registry.invalid/team/envs:v1", f"{simulator.host}/team/envs:v1", trust=Trust(insecure=True))
        assert not between.requests
        # A folder is asked in no way at all.
        for destination in ("oci:nowhere:v1", "registry.invalid/team/other:v1"):
            with pytest.raises(NotFound):
                copy("registry.invalid/team/envs:v1", destination, trust=Trust(insecure=True))
        assert between.requests


def test_a_registry_that_does_not_mount_is_sent_the_blobs(simulator: RegistrySimulator, layout: str) -> None:
    simulator.mounts = False
    copy(layout, f"{simulator.host}/team/envs:v1")
    assert copy(f"{simulator.host}/team/envs:v1", f"{simulator.host}/team/other:v1").sent == 4
    assert "v1" in simulator.tags["team/other"]


def test_a_copy_that_fails_leaves_no_tag(simulator: RegistrySimulator, layout: str) -> None:
    simulator.faults = [Fault("PUT .*/blobs/", 1, 403)]
    with pytest.raises(Exception, match="denies"):
        copy(layout, f"{simulator.host}/team/envs:v1")
    assert not simulator.tags.get("team/envs")
    assert not simulator.asked("PUT .*/manifests/")


def test_a_copy_from_nowhere_makes_nothing(tmp_path: Path, simulator: RegistrySimulator) -> None:
    with pytest.raises(NotFound, match="no tag 'v1'"):
        copy(f"{simulator.host}/team/envs:v1", f"oci:{tmp_path}/new:v1")
    assert not (tmp_path / "new").exists()


def test_a_digest_that_the_source_is_not_is_refused(layout: str, tmp_path: Path) -> None:
    other = f"sha256:{'0' * 64}"
    with pytest.raises(InvalidContent, match="use a tag alone"):
        copy(layout, f"oci:{tmp_path}/new:v1@{other}")


def test_indexes_within_indexes_have_an_end(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    inner = push_image(layout, [b"content"]).descriptor
    for _ in range(3):
        content = Index((inner,)).to_json()
        inner = Blob(Descriptor.of(INDEX, content), content).pushed(layout).descriptor
    assert len(list(walk(layout, inner))) == 4
    content = Index((inner,)).to_json()
    deep = Blob(Descriptor.of(INDEX, content), content).pushed(layout).descriptor
    with pytest.raises(InvalidContent, match="indexes nested more than 4 levels deep"):
        list(walk(layout, deep))


def test_manifest_of_another_kind_is_not_copied(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    layout.push(blob(b"content").descriptor, lambda: BytesIO(b"content"), tag="v1")
    with pytest.raises(InvalidContent, match=f"{LAYER_TAR} is neither an image nor an index".replace("+", r"\+")):
        copy(f"oci:{tmp_path}/layout:v1", f"oci:{tmp_path}/other:v1")
