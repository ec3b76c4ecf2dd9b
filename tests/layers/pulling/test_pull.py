from __future__ import annotations

import os
import shutil
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.layers.errors import InvalidContent, LayersError, NotFound
from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import LAYER_ZSTD, Descriptor, Digest, Index, Layer, Manifest, Platform
from lamella.layers.oci.storage import fetch_document
from lamella.layers.progress.display import Silent
from lamella.layers.pulling import fetch as fetching
from lamella.layers.pulling.pull import leased, plan, pull
from lamella.layers.store.store import Store
from lamella.layers.upkeep.gc import gc
from support import tars
from support.published import publish_layers

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lamella.layers.oci.storage import Reader


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def layout(tmp_path: Path) -> OciLayout:
    return OciLayout(str(tmp_path / "layout"), create=True)


@pytest.fixture(params=["threads", "workers"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpacked by this process, as small pulls are, and by workers, as large ones."""
    if request.param == "workers":
        monkeypatch.setattr(fetching, "LARGE", 1)


def packages(names: str) -> list[tuple[Layer, bytes]]:
    return [tars.layer(tars.tree({f"opt/env/{name}": name.encode() * 100}), package=name) for name in names]


@pytest.fixture
def reference(layout: OciLayout, tmp_path: Path) -> str:
    """What the tests publish an environment as."""
    assert layout
    return f"oci:{tmp_path}/layout:env"


class Heard:
    """Records the progress that is reported to it."""

    def __init__(self) -> None:
        self.task = ""
        self.total: int | None = None
        self.amount = 0
        self.ended = 0

    def begin(self, task: str, total: int | None, unit: str) -> None:
        assert unit == "B"
        self.task = task
        self.total = total

    def advance(self, task: str, amount: int) -> None:
        assert task == self.task
        self.amount += amount

    def end(self, task: str) -> None:
        assert task == self.task
        self.ended += 1


class TestPlan:
    LAYERS = st.lists(st.tuples(st.binary(max_size=3), st.integers(0, 100)), max_size=20)

    @staticmethod
    def layers(drawn: Sequence[tuple[bytes, int]]) -> list[Layer]:
        return [Layer(Descriptor(LAYER_ZSTD, Digest.of(b"blob" + name), size), Digest.of(name)) for name, size in drawn]

    @given(LAYERS, st.sets(st.binary(max_size=3)))
    @pytest.mark.slow
    def test_each_layer_is_fetched_once_or_present_and_the_largest_comes_first(
        self, drawn: list[tuple[bytes, int]], here: set[bytes]
    ) -> None:
        layers = self.layers(drawn)
        made = plan(layers, {Digest.of(name) for name in here})
        fetched = [layer.diff_id for layer in made.fetch]
        present = [layer.diff_id for layer in made.present]
        assert sorted(fetched + present) == sorted({layer.diff_id for layer in layers})
        assert set(present) == {Digest.of(name) for name, _ in drawn} & {Digest.of(name) for name in here}
        sizes = [layer.descriptor.size for layer in made.fetch]
        assert sizes == sorted(sizes, reverse=True)
        assert made.bytes == sum(sizes)

    @pytest.mark.slow
    @given(LAYERS.filter(lambda drawn: len({name for name, _ in drawn}) == len(drawn)), st.randoms())
    def test_the_order_of_layers_changes_nothing(self, drawn: list[tuple[bytes, int]], chance: random.Random) -> None:
        layers = self.layers(drawn)
        shuffled = chance.sample(layers, len(layers))
        assert plan(shuffled, ()).fetch == plan(layers, ()).fetch


@pytest.mark.usefixtures("either_way")
def test_pulls_missing_layers_and_nothing_twice(store: Store, layout: OciLayout, reference: str) -> None:
    publish_layers(layout, "env", packages("abc"))
    first = pull(reference, store=store)
    assert len(first.plan.fetch) == 3
    assert first.moved == first.plan.bytes > 0
    second = pull(reference, store=store)
    assert (second.plan.fetch, second.moved) == ((), 0)
    assert second.reference == first.reference


def test_one_changed_package_is_one_layer(store: Store, layout: OciLayout, reference: str) -> None:
    before = packages("abc")
    after = [*before[:2], tars.layer(tars.tree({"opt/env/c": b"changed"}), package="c")]
    publish_layers(layout, "before", before)
    publish_layers(layout, "after", after)
    pull(reference.replace(":env", ":before"), store=store)
    pulled = pull(reference.replace(":env", ":after"), store=store)
    assert [layer.diff_id for layer in pulled.plan.fetch] == [after[2][0].diff_id]
    assert pulled.moved == after[2][0].descriptor.size


def test_a_reference_with_a_digest_needs_no_request_when_all_is_here(
    store: Store, layout: OciLayout, reference: str, tmp_path: Path
) -> None:
    publish_layers(layout, "env", packages("ab"))
    pinned = pull(reference, store=store).reference
    shutil.rmtree(tmp_path / "layout")
    assert pull(pinned, store=store).moved == 0
    with pytest.raises(LayersError):
        pull(reference, store=store)


def test_a_damaged_document_is_fetched_again(store: Store, layout: OciLayout, reference: str, tmp_path: Path) -> None:
    publish_layers(layout, "env", packages("ab"))
    pinned = pull(reference, store=store).reference
    documents = f"{store.path}/documents/sha256"
    for name in os.listdir(documents):
        with open(f"{documents}/{name}", "w", encoding="utf-8") as document:
            document.write("{}")
    assert pull(pinned, store=store).reference == pinned
    shutil.rmtree(tmp_path / "layout")
    assert pull(pinned, store=store).moved == 0


def test_a_dry_run_brings_no_layer(store: Store, layout: OciLayout, reference: str) -> None:
    publish_layers(layout, "env", packages("ab"))
    planned = pull(reference, store=store, dry_run=True)
    assert len(planned.plan.fetch) == 2
    assert planned.moved == 0
    assert list(store.layers()) == []


@pytest.mark.usefixtures("either_way")
def test_progress_ends_at_the_bytes_of_the_plan(store: Store, layout: OciLayout, reference: str) -> None:
    publish_layers(layout, "env", packages("abcdef"))
    heard = Heard()
    pulled = pull(reference, store=store, progress=heard)
    assert heard.amount == heard.total == pulled.plan.bytes
    assert heard.ended == 1


@pytest.mark.usefixtures("either_way")
def test_the_first_bad_layer_stops_the_pull_and_good_ones_stay_whole(
    store: Store, layout: OciLayout, reference: str
) -> None:
    good = packages("abc")
    bad = tars.layer(tars.file(b"../../outside", b"x") + tars.END, package="evil")
    publish_layers(layout, "env", [*good, bad])
    with pytest.raises(LayersError, match=r"cannot unpack layer evil 1\.0 \(sha256:[0-9a-f]{12}\): "):
        pull(reference, store=store)
    assert not store.has(bad[0].diff_id)
    assert os.listdir(f"{store.path}/partial") == []
    assert os.listdir(f"{store.path}/locks") == []


@pytest.mark.usefixtures("either_way")
@pytest.mark.slow
def test_failed_pull_resumes(store: Store, layout: OciLayout, reference: str, tmp_path: Path) -> None:
    made = packages("abc")
    publish_layers(layout, "env", made)
    missing = made[2][0].descriptor.digest.hex
    blob = tmp_path / "layout" / "blobs" / "sha256" / missing
    blob.rename(tmp_path / "moved")
    with pytest.raises(
        NotFound, match=r"/layout:env: package c 1\.0 is lost \(sha256:[0-9a-f]{64}\); restore it from the"
    ):
        pull(reference, store=store)
    (tmp_path / "moved").rename(blob)
    pull(reference, store=store)
    assert set(store.layers()) == {layer.diff_id for layer, _ in made}


@pytest.mark.parametrize("part", ["manifest", "config"])
def test_a_lost_document_is_named_with_the_push_that_restores_it(
    store: Store, layout: OciLayout, reference: str, tmp_path: Path, part: str
) -> None:
    publish_layers(layout, "env", packages("a"))
    (entry,) = Index.parse(fetch_document(layout, layout.resolve("env"))).manifests
    lost = entry if part == "manifest" else Manifest.parse(fetch_document(layout, entry)).config
    (tmp_path / "layout/blobs/sha256" / lost.digest.hex).unlink()
    message = f"^{reference}: its {part} is lost .*; restore it from the environment with lamella push {reference}$"
    with pytest.raises(NotFound, match=message):
        pull(reference, store=store)


@pytest.mark.usefixtures("either_way")
def test_eight_layers_are_fetched_at_once(store: Store, layout: OciLayout) -> None:
    made = packages("abcdefgh")
    publish_layers(layout, "env", made)
    all_asked = threading.Barrier(8, timeout=60)

    class Distant:
        """Answers when eight have asked."""

        @contextmanager
        def fetch(self, descriptor: Descriptor) -> Iterator[Reader]:
            all_asked.wait()
            with layout.fetch(descriptor) as stream:
                yield stream

    fetching.fetch([layer for layer, _ in made], Distant(), store, Silent())
    assert len(list(store.layers())) == 8


def test_layers_stay_while_they_are_leased(store: Store, layout: OciLayout, reference: str) -> None:
    publish_layers(layout, "env", packages("ab"))
    with leased(reference, store=store) as pulled:
        gc(store, keep_bytes=0)
        assert all(store.has(layer.diff_id) for layer in pulled.environment.layers)
    gc(store, keep_bytes=0)
    assert list(store.layers()) == []


def test_another_platform_is_refused_with_those_there_are(store: Store, layout: OciLayout, reference: str) -> None:
    publish_layers(layout, "env", packages("a"))
    with pytest.raises(
        LayersError, match=f"no environment for linux/s390x; use --platform with one of {Platform.here()}"
    ):
        pull(reference, store=store, platform=Platform("linux", "s390x"))


def test_a_blob_of_another_size_than_its_descriptor_is_refused(store: Store, layout: OciLayout, reference: str) -> None:
    (layer, blob), other = packages("ab")
    stated = Descriptor(LAYER_ZSTD, layer.descriptor.digest, layer.descriptor.size - 1)
    publish_layers(layout, "env", [(Layer(stated, layer.diff_id), blob), other])
    with pytest.raises(InvalidContent, match=layer.descriptor.digest.hex):
        pull(reference, store=store)
    assert not store.has(layer.diff_id)
