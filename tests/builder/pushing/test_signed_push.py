"""What a signed push reuses: its own builds, and what the same key signed; never the word of a repository's writers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import BuilderError
from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.layers.oci.annotations import IMAGE, PACKAGE
from lamella.layers.oci.documents import (
    Digest,
    ImageConfig,
    Index,
    Manifest,
    Platform,
)
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.published import environment as published
from lamella.layers.settings.trust import Trust
from lamella.layers.signing.cosign import verify_signature
from lamella.layers.signing.keys import read_private_key
from lamella.layers.storages import open_storage
from support.keys import key_pair
from support.packages import SITE, environment, package
from support.policies import administer
from support.published import blob, image, push_index
from support.registry_simulator import RegistrySimulator
from support.tars import archive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamella.builder.environment import Environment

EVIL = archive({f"{SITE}/p1.py": "import os; os.system('id')\n"}, "/opt/env")


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as simulator:
        yield simulator


@pytest.fixture
def place(registry: RegistrySimulator) -> str:
    return f"{registry.host}/team/envs"


@pytest.fixture
def signed(tmp_path: Path) -> PushOptions:
    return PushOptions(signing_key=read_private_key(key_pair(tmp_path)[0]))


def small(prefix: Path, *, count: int = 3, more: str = "") -> Environment:
    """Packages p0, p1 and so on, each larger than the next; the last ends with `more`."""
    texts = [f"value = {number}\n" + "# padding\n" * (count - number) * 100 for number in range(count)]
    texts[-1] += more
    return environment(
        prefix, *(package(prefix, f"p{number}", {f"{SITE}/p{number}.py": text}) for number, text in enumerate(texts))
    )


def digests(reference: str) -> list[str]:
    """Digests of the layers that a node gets."""
    parsed = Reference.parse(reference)
    (found,) = published.read_index(open_storage(parsed, Trust()), parsed, Trust()).environments
    return [str(layer.descriptor.digest) for layer in found.layers]


def doctor(reference: str, *, tag: str = "", keep_image: bool = False) -> None:
    """As a writer without the key: put another layer in p1's place, keep its layer key, and set the tag."""
    parsed = Reference.parse(reference)
    storage = open_storage(parsed, Trust())
    index = Index.parse(fetch_document(storage, storage.resolve(parsed.tag)))
    (entry,) = [entry for entry in index.manifests if IMAGE in entry.annotations]
    manifest = Manifest.parse(fetch_document(storage, entry))
    config = ImageConfig.parse(fetch_document(storage, manifest.config))
    layers, diff_ids = list(manifest.layers), list(config.diff_ids)
    (at,) = [number for number, layer in enumerate(layers) if layer.annotations[PACKAGE] == "p1"]
    layers[at] = blob(EVIL, layers[at].annotations).pushed(storage).descriptor
    diff_ids[at] = Digest.of(EVIL)
    config_now, manifest_now = image(layers, diff_ids, config.platform, annotations=manifest.annotations)
    config_now.pushed(storage)
    made = manifest_now.pushed(storage).descriptor
    runnable = entry.annotations[IMAGE] if keep_image else str(Digest.of(b"nowhere"))
    entries = [each for each in index.manifests if keep_image and IMAGE not in each.annotations]
    entries.append(replace(made, platform=entry.platform, annotations=dict(entry.annotations) | {IMAGE: runnable}))
    push_index(storage, entries, tag or parsed.tag)
    assert str(Digest.of(EVIL)) in digests(f"{reference.rpartition(':')[0]}:{tag or parsed.tag}")


@pytest.mark.parametrize("keep_image", [True, False], ids=["image kept", "no image"])
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh cache", "own cache"])
@pytest.mark.slow
def test_a_layer_that_a_writer_put_in_a_package_s_place_is_not_signed(
    tmp_path: Path, place: str, signed: PushOptions, fresh: bool, keep_image: bool
) -> None:
    cache = LayerCache(str(tmp_path / "cache"))
    honest = push(f"{place}:v1", small(tmp_path / "env"), signed, cache=cache)
    doctor(f"{place}:v1", keep_image=keep_image)
    again = push(
        f"{place}:v1",
        small(tmp_path / "again"),
        signed,
        cache=LayerCache(str(tmp_path / "fresh")) if fresh else cache,
    )
    assert again.reference == honest.reference
    assert (again.built, again.uploaded) == (3 if fresh else 0, 0)


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh cache", "learned before"])
@pytest.mark.slow
def test_a_layer_that_another_tag_states_is_not_signed(
    tmp_path: Path, place: str, signed: PushOptions, fresh: bool
) -> None:
    """Neither when the push reads that tag itself, nor when an earlier push without a signature learned from it."""
    push(f"{place}:other", small(tmp_path / "env"), cache=LayerCache(str(tmp_path / "theirs")))
    doctor(f"{place}:other")
    cache = LayerCache(str(tmp_path / "mine"))
    learned = push(f"{place}:unsigned", small(tmp_path / "b", more="# changed\n"), cache=cache)
    assert learned.built == 1, "without a signature, writers of the repository are trusted with what a key is"
    assert str(Digest.of(EVIL)) in digests(learned.reference)
    known = LayerCache(str(tmp_path / "fresh")) if fresh else cache
    pushed = push(f"{place}:signed", small(tmp_path / "c"), signed, cache=known)
    assert str(Digest.of(EVIL)) not in digests(pushed.reference)
    assert pushed.built == 3


@pytest.mark.slow
def test_a_bundle_of_learned_layers_is_not_signed(tmp_path: Path, place: str, signed: PushOptions) -> None:
    unsigned = PushOptions(max_layers=12)
    push(f"{place}:v1", small(tmp_path / "env", count=20), unsigned, cache=LayerCache(str(tmp_path / "theirs")))
    doctor(f"{place}:v1", keep_image=True)
    cache = LayerCache(str(tmp_path / "mine"))
    mine = push(f"{place}:v2", small(tmp_path / "b", count=20, more="# changed\n"), unsigned, cache=cache)
    assert mine.built == 2, "the changed package and its bundle"
    pushed = push(
        f"{place}:v3",
        small(tmp_path / "c", count=20, more="# changed\n"),
        replace(signed, max_layers=12),
        cache=cache,
    )
    assert pushed.built == 19 + 2, "all but the changed package, and both bundles"


@pytest.mark.slow
def test_layers_that_the_same_key_signed_are_reused(tmp_path: Path, place: str, signed: PushOptions) -> None:
    public = key_pair(tmp_path)[1]
    signed = replace(signed, signing_key=read_private_key(f"{tmp_path}/ours.pem"))
    first = push(f"{place}:v1", small(tmp_path / "a"), signed, cache=LayerCache(str(tmp_path / "ci-1")))
    cache = LayerCache(str(tmp_path / "ci-2"))
    again = push(f"{place}:v1", small(tmp_path / "b"), signed, cache=cache)
    assert (again.reference, again.built, again.uploaded) == (first.reference, 0, 0)
    other = push(f"{place}:v2", small(tmp_path / "c", more="# changed\n"), signed, cache=cache)
    assert (other.built, other.uploaded) == (1, 1)
    verify_signature(other.reference, public)


@pytest.mark.slow
def test_layers_that_another_key_signed_are_built_again_and_equal_bytes_are_not_uploaded(
    tmp_path: Path, place: str, signed: PushOptions
) -> None:
    first = push(f"{place}:v1", small(tmp_path / "a"), signed, cache=LayerCache(str(tmp_path / "theirs")))
    private, public = key_pair(tmp_path, "mine")
    own = PushOptions(signing_key=read_private_key(private))
    pushed = push(f"{place}:v1", small(tmp_path / "b"), own, cache=LayerCache(str(tmp_path / "cache")))
    assert (pushed.reference, pushed.built, pushed.uploaded) == (first.reference, 3, 0)
    verify_signature(pushed.reference, public)


@pytest.mark.slow
def test_layers_learned_from_one_repository_are_not_used_for_another(
    tmp_path: Path, registry: RegistrySimulator
) -> None:
    """Each repository's writers are trusted with that repository alone."""
    sandbox, team = f"{registry.host}/sandbox/envs", f"{registry.host}/team/envs"
    push(f"{sandbox}:v1", small(tmp_path / "a"), cache=LayerCache(str(tmp_path / "theirs")))
    doctor(f"{sandbox}:v1")
    registry.add_blob("team/envs", EVIL)
    cache = LayerCache(str(tmp_path / "mine"))
    push(f"{sandbox}:v2", small(tmp_path / "b"), cache=cache)
    pushed = push(f"{team}:v1", small(tmp_path / "c"), cache=cache)
    assert str(Digest.of(EVIL)) not in digests(pushed.reference)


@pytest.mark.parametrize("by", ["user", "administrator"])
@pytest.mark.slow
def test_layers_learned_before_a_signature_was_required_are_built(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    push(f"{place}:v1", small(tmp_path / "a"), cache=LayerCache(str(tmp_path / "theirs")))
    doctor(f"{place}:v1")
    cache = LayerCache(str(tmp_path / "mine"))
    assert push(f"{place}:v2", small(tmp_path / "b"), cache=cache).built == 0
    trust = Trust(required_key=key_pair(tmp_path)[1])
    if by == "administrator":
        administer(monkeypatch, tmp_path, require_signature=[str(trust.required_key)])
        trust = Trust()
    assert push(f"{place}:v3", small(tmp_path / "c"), trust=trust, cache=cache).built == 3


@pytest.mark.slow
def test_other_platforms_that_this_key_did_not_sign_are_not_signed_along(
    tmp_path: Path, place: str, signed: PushOptions
) -> None:
    cache = LayerCache(str(tmp_path / "cache"))
    arm64 = replace(small(tmp_path / "a"), platform=Platform("linux", "arm64"))
    push(f"{place}:v1", arm64, cache=LayerCache(str(tmp_path / "theirs")))
    appended = replace(signed, append=True)
    with pytest.raises(BuilderError, match="--append: the tag's linux/arm64 is not signed by this key"):
        push(f"{place}:v1", small(tmp_path / "b"), appended, cache=cache)
    push(f"{place}:v1", arm64, signed, cache=cache)
    both = push(f"{place}:v1", small(tmp_path / "b"), appended, cache=cache)
    assert push(f"{place}:v1", arm64, appended, cache=cache).reference == both.reference


@pytest.mark.slow
def test_a_signed_push_of_an_unchanged_environment_without_findings_makes_five_requests(
    tmp_path: Path, registry: RegistrySimulator, place: str, signed: PushOptions
) -> None:
    cache = LayerCache(str(tmp_path / "cache"))
    push(f"{place}:v1", small(tmp_path / "a"), signed, cache=cache)
    registry.requests.clear()
    assert push(f"{place}:v1", small(tmp_path / "b"), signed, cache=cache).plan.unchanged
    assert len(registry.requests) == 5, "the tag, both manifests, the signature and what it signs"
