"""Layers fetched beside another process that brings one of them."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from lamella.layers.layout import OciLayout
from lamella.layers.progress.display import Silent
from lamella.layers.pulling import fetch as fetching
from lamella.layers.store.incoming import claim, lock_path
from lamella.layers.store.store import Store
from support import tars
from support.published import publish_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lamella.layers.oci.documents import Descriptor, Digest, Layer
    from lamella.layers.oci.storage import Reader


class Watched:
    """A layout that reports each blob before and after its first byte is read."""

    def __init__(self, layout: OciLayout, report: Callable[[Digest, str], object]) -> None:
        self.layout = layout
        self.report = report

    @contextmanager
    def fetch(self, descriptor: Descriptor) -> Iterator[Reader]:
        """Open the blob."""
        self.report(descriptor.digest, "opened")
        with self.layout.fetch(descriptor) as stream:
            yield stream
        self.report(descriptor.digest, "read")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "store"))
    made.prepare()
    return made


@pytest.fixture
def layout(tmp_path: Path) -> OciLayout:
    return OciLayout(str(tmp_path / "layout"), create=True)


def layers(layout: OciLayout, names: str) -> list[Layer]:
    """Publish a layer for each letter."""
    made = [tars.layer(tars.tree({f"opt/env/{name}": name.encode() * 100}), package=name) for name in names]
    publish_layers(layout, "env", made)
    return [layer for layer, _ in made]


def test_a_layer_that_another_process_gives_up_is_fetched_after_the_others(store: Store, layout: OciLayout) -> None:
    first, *others = layers(layout, "abc")
    theirs = claim(store, first.diff_id)
    assert theirs
    order: list[Digest] = []

    def report(digest: Digest, moment: str) -> None:
        if moment == "opened":
            order.append(digest)
            if len(order) == len(others):
                theirs.close()

    fetching.fetch([first, *others], Watched(layout, report), store, Silent())
    assert {*store.layers()} == {layer.diff_id for layer in (first, *others)}
    assert order[-1] == first.descriptor.digest


def test_a_download_shows_waiting_processes_that_it_lives(
    store: Store, layout: OciLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_SIGN_OF_LIFE", 0.0)
    (layer,) = layers(layout, "a")
    path = lock_path(store, layer.diff_id)
    seen: list[float] = []

    def report(_: Digest, moment: str) -> None:
        if moment == "opened":
            os.utime(path, (0, 0))
        else:
            seen.append(os.stat(path).st_mtime)

    fetching.fetch([layer], Watched(layout, report), store, Silent())
    assert seen
    assert seen[0] > 0


def test_a_finished_fetch_leaves_no_claim(store: Store, layout: OciLayout) -> None:
    made = layers(layout, "abcdefgh")
    fetching.fetch(made, layout, store, Silent())
    claims = [claim(store, layer.diff_id) for layer in made]
    assert all(claims)
    for each in claims:
        assert each
        each.close()
