"""A tag that names content which is gone: the next push notices, and sends it again."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from lamella.builder.errors import BuilderError
from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.presence import Presence
from lamella.builder.pushing.push import push
from lamella.builder.pushing.team_cache import recall, remember
from lamella.layers.errors import Denied, InvalidContent, NotSigned
from lamella.layers.oci import referrers
from lamella.layers.oci.annotations import IMAGE
from lamella.layers.oci.documents import Descriptor, Index, Manifest, Platform
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.published.copy import copy
from lamella.layers.published.findings import Finding
from lamella.layers.settings.trust import Trust
from lamella.layers.signing.cosign import tag_of, verify_signature
from lamella.layers.signing.keys import read_private_key
from lamella.layers.storages import open_storage
from support.keys import key_pair
from support.packages import SITE, environment, package
from support.published import push_image
from support.registry_simulator import Fault, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.builder.environment import Environment
    from lamella.layers.oci.storage import Storage

Part = Literal[
    "index",
    "image",
    "packages",
    "image config",
    "packages config",
    "layer",
    "bundle",
    "base layer",
    "list of attachments",
]
PARTS: tuple[Part, ...] = ("image", "packages", "image config", "packages config", "layer", "bundle", "base layer")
Attached = Literal["findings", "findings document", "bill of materials", "bill of materials document"]
ATTACHED: tuple[Attached, ...] = (
    "findings",
    "findings document",
    "bill of materials",
    "bill of materials document",
)


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as simulator:
        yield simulator


@pytest.fixture
def options(tmp_path: Path) -> PushOptions:
    base = Reference.parse(f"oci:{tmp_path}/base:b")
    push_image(open_storage(base, Trust(), create=True), [b"base layer"], base.tag)
    return PushOptions(base=str(base), max_layers=7, sbom=True)


def small(prefix: Path, *, count: int = 8) -> Environment:
    """Packages p0, p1 and so on, each larger than the next, and a finding."""
    packages = [
        package(
            prefix, f"p{number}", {f"{SITE}/p{number}.py": f"n = {number}\n" + "# padding\n" * (count - number) * 99}
        )
        for number in range(count)
    ]
    return replace(environment(prefix, *packages), findings=(Finding("warning", "patched", "p1", "p1 was patched"),))


def opened(reference: str) -> tuple[Storage, Descriptor]:
    parsed = Reference.parse(reference)
    storage = open_storage(parsed, Trust(), mirrors=False)
    return storage, storage.resolve(parsed.tag)


def part_of(reference: str, part: Part | Attached) -> Descriptor:
    """The descriptor of a part of what `reference` names."""
    storage, index = opened(reference)
    if part == "index":
        return index
    if part in ATTACHED:
        kind = "findings" if part.startswith("findings") else "cyclonedx"
        (entry,) = [each for each in referrers.referrers(storage, index) if kind in each.artifact_type]
        return Manifest.parse(fetch_document(storage, entry)).layers[0] if part.endswith("document") else entry
    entries = Index.parse(fetch_document(storage, index)).manifests
    (packages,) = [entry for entry in entries if IMAGE in entry.annotations]
    (image,) = [entry for entry in entries if IMAGE not in entry.annotations]
    runnable, manifest = (Manifest.parse(fetch_document(storage, entry)) for entry in (image, packages))
    return {
        "image": image,
        "packages": packages,
        "image config": runnable.config,
        "packages config": manifest.config,
        "layer": manifest.layers[0],
        "bundle": runnable.layers[-1],
        "base layer": runnable.layers[0],
    }[part]


def lose(reference: str, lost: Descriptor, registry: RegistrySimulator) -> None:
    """Remove content, as a registry's garbage collection does, and leave all that names it."""
    parsed = Reference.parse(reference)
    if parsed.is_layout:
        Path(parsed.folder, "blobs", lost.digest.algorithm, lost.digest.hex).unlink()
        return
    for kept in (registry.blobs[parsed.repository], registry.manifests[parsed.repository]):
        kept.pop(str(lost.digest), None)


def assert_whole(reference: str, tmp_path: Path) -> None:
    """Everything that the tag names, and everything that is attached, can be read."""
    place = f"oci:{tmp_path}/whole-{time.monotonic_ns()}:v1"
    copy(reference, place)
    assert len(referrers.referrers(*opened(place))) == 2


@pytest.mark.parametrize("fresh", [False, True], ids=["same cache", "fresh cache"])
@pytest.mark.parametrize("where", ["layout", "registry"])
@pytest.mark.parametrize("part", [*PARTS, "findings", "bill of materials"])
@pytest.mark.slow
def test_the_next_push_sends_lost_layers(
    tmp_path: Path, registry: RegistrySimulator, options: PushOptions, where: str, part: Part | Attached, fresh: bool
) -> None:
    reference = f"oci:{tmp_path}/out:v1" if where == "layout" else f"{registry.host}/team/envs:v1"
    cache = LayerCache(str(tmp_path / "cache"))
    first = push(reference, small(tmp_path / "env"), options, cache=cache)
    lose(reference, part_of(reference, part), registry)
    if fresh:
        cache = LayerCache(str(tmp_path / "fresh"))
    again = push(reference, small(tmp_path / "again"), options, cache=cache)
    assert again.reference == first.reference
    assert_whole(reference, tmp_path)
    assert push(reference, small(tmp_path / "again"), options, cache=cache).plan.unchanged


@pytest.mark.parametrize("part", ["index", "list of attachments", "findings document", "bill of materials document"])
@pytest.mark.slow
def test_the_next_push_completes_a_layout(
    tmp_path: Path, registry: RegistrySimulator, options: PushOptions, part: Part | Attached
) -> None:
    cache = LayerCache(str(tmp_path / "cache"))
    reference = f"oci:{tmp_path}/out:v1"
    digest = Reference.parse(push(reference, small(tmp_path / "env"), options, cache=cache).reference).digest
    if part == "list of attachments":
        lost = opened(reference)[0].resolve(str(digest).replace(":", "-"))
    else:
        lost = part_of(reference, part)
    lose(reference, lost, registry)
    push(reference, small(tmp_path / "env"), options, cache=cache)
    assert_whole(reference, tmp_path)


@pytest.mark.parametrize("part", ["layer", "bundle", "packages config", "base layer", *ATTACHED])
@pytest.mark.parametrize("day", [False, True], ids=["--check", "after a day"])
@pytest.mark.slow
def test_a_registry_that_checks_no_manifest_is_asked_for_everything_each_day_and_with_check(
    tmp_path: Path, registry: RegistrySimulator, options: PushOptions, part: Part | Attached, day: bool
) -> None:
    registry.checks, registry.referrers_api = False, False
    reference, place = f"{registry.host}/team/envs:v1", f"{registry.host}/team/envs"
    cache = LayerCache(str(tmp_path / "cache"))
    push(reference, small(tmp_path / "env"), options, cache=cache)
    lose(reference, part_of(reference, part), registry)
    if day:
        answers = recall(cache, place)
        remember(cache, place, replace(answers, digests={name: at - 25 * 3600 for name, at in answers.digests.items()}))
    push(reference, small(tmp_path / "env"), replace(options, check=not day), cache=cache)
    assert_whole(reference, tmp_path)


@pytest.mark.parametrize("where", ["layout", "registry"])
@pytest.mark.parametrize("part", ["signature", "payload"])
@pytest.mark.slow
def test_the_next_push_signs_again_if_its_signature_was_lost(
    tmp_path: Path, registry: RegistrySimulator, where: str, part: str
) -> None:
    private, public = key_pair(tmp_path)
    options = PushOptions(signing_key=read_private_key(private))
    reference = f"oci:{tmp_path}/out:v1" if where == "layout" else f"{registry.host}/team/envs:v1"
    cache = LayerCache(str(tmp_path / "cache"))
    digest = Reference.parse(push(reference, small(tmp_path / "env"), options, cache=cache).reference).digest
    assert digest
    storage, _ = opened(reference)
    lost = storage.resolve(tag_of(digest))
    if part == "payload":
        lost = Manifest.parse(fetch_document(storage, lost)).layers[0]
    lose(reference, lost, registry)
    with pytest.raises(NotSigned):
        verify_signature(reference, public)
    push(reference, small(tmp_path / "env"), options, cache=cache)
    verify_signature(reference, public)


@pytest.mark.slow
def test_daily_pushes_do_not_renew_answers_without_asking(tmp_path: Path, registry: RegistrySimulator) -> None:
    cache = LayerCache(str(tmp_path / "cache"))
    reference, place = f"{registry.host}/team/envs:v1", f"{registry.host}/team/envs"
    push(reference, small(tmp_path / "env"), cache=cache)
    layer = str(part_of(reference, "layer").digest)
    before = recall(cache, place).digests[layer]
    push(reference, small(tmp_path / "env"), cache=cache)
    assert recall(cache, place).digests[layer] == before


@pytest.mark.slow
def test_a_changed_push_finds_a_lost_layer_and_a_lost_member_of_a_bundle(
    tmp_path: Path, registry: RegistrySimulator, options: PushOptions
) -> None:
    reference = f"{registry.host}/team/envs:v1"
    push(reference, small(tmp_path / "env"), options, cache=LayerCache(str(tmp_path / "theirs")))
    cache = LayerCache(str(tmp_path / "mine"))
    push(reference, small(tmp_path / "env"), options, cache=cache)
    for part in ("layer", "bundle"):
        lose(reference, part_of(reference, part), registry)
    changed = push(reference, small(tmp_path / "new", count=9), options, cache=cache)
    assert changed.built
    assert_whole(reference, tmp_path)


@pytest.mark.parametrize("status", [403, 405, 409])
@pytest.mark.slow
def test_an_unchanged_push_needs_no_right_to_push_if_everything_is_there(
    tmp_path: Path, registry: RegistrySimulator, status: int
) -> None:
    reference = f"{registry.host}/team/envs:v1"
    cache = LayerCache(str(tmp_path / "cache"))
    push(reference, small(tmp_path / "env"), cache=cache)
    registry.faults.append(Fault("PUT|POST|PATCH", 99, status))
    again = push(reference, small(tmp_path / "env"), cache=cache)
    assert (again.plan.unchanged, again.unattached) == (True, "")
    lose(reference, part_of(reference, "layer"), registry)
    with pytest.raises((Denied, InvalidContent)):
        push(reference, small(tmp_path / "env"), cache=cache)


@pytest.mark.slow
def test_a_platform_that_is_gone_is_named(tmp_path: Path, registry: RegistrySimulator) -> None:
    """Only a push for that platform can restore it."""
    reference = f"{registry.host}/team/envs:v1"
    cache = LayerCache(str(tmp_path / "cache"))
    arm64 = replace(small(tmp_path / "env"), platform=Platform("linux", "arm64"))
    push(reference, arm64, cache=cache)
    lose(reference, part_of(reference, "packages"), registry)
    append = PushOptions(append=True)
    with pytest.raises(BuilderError, match=r"linux/arm64 are gone from it; push that platform again, or push without"):
        push(reference, small(tmp_path / "env"), append, cache=cache)
    push(reference, arm64, append, cache=cache)
    push(reference, small(tmp_path / "env"), append, cache=cache)


@pytest.mark.slow
def test_an_unchanged_push_of_228_packages_is_four_requests(tmp_path: Path, registry: RegistrySimulator) -> None:
    """With findings and a bill of materials, in a registry without a referrers API."""
    registry.referrers_api = False
    prefix = tmp_path / "env"
    many = [package(prefix, f"p{number}", {f"share/p{number}": f"{number}"}) for number in range(228)]
    env = replace(environment(prefix, *many), findings=(Finding("warning", "patched", "p1", "p1 was patched"),))
    cache = LayerCache(str(tmp_path / "cache"))
    push(f"{registry.host}/team/envs:v1", env, PushOptions(sbom=True), cache=cache)
    registry.requests.clear()
    assert push(f"{registry.host}/team/envs:v1", env, PushOptions(sbom=True), cache=cache).plan.unchanged
    assert len(registry.requests) == 4


def test_answers_of_a_destination_are_asked_once_in_a_push(tmp_path: Path, registry: RegistrySimulator) -> None:
    storage, _ = opened_image(registry)
    wanted = [Descriptor.of("application/vnd.oci.image.layer.v1.tar", content) for content in (b"one", b"two", b"gone")]
    presence = Presence(storage, LayerCache(str(tmp_path)), "place", check=True)
    registry.requests.clear()
    for _ in range(2):
        assert presence.there(wanted) == {str(each.digest) for each in wanted[:2]}
    assert len(registry.asked("HEAD")) == 4, "a lost blob may have been pushed again meanwhile"
    assert not presence.recalled


def opened_image(registry: RegistrySimulator) -> tuple[Storage, Descriptor]:
    reference = Reference.parse(f"{registry.host}/team/envs:v1")
    storage = open_storage(reference, Trust(), mirrors=False)
    return storage, push_image(storage, [b"one", b"two"], "v1").descriptor
