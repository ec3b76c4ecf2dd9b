"""Which other tags have a layer as well."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lamella.layers.layout import OciLayout
from lamella.layers.oci.reference import Reference
from lamella.layers.published import environment as published
from lamella.layers.published.shared_layers import SharedLayers, shared
from lamella.layers.settings.trust import Trust
from support.published import push_environment, push_image

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def layout(tmp_path: Path) -> OciLayout:
    return OciLayout(str(tmp_path / "layout"), create=True)


def asked(layout: OciLayout, tag: str, limit: int = 16) -> tuple[list[tuple[str, ...]], SharedLayers]:
    """For each layer of `tag`, the other tags; and the whole answer."""
    (environment,) = published.read_index(layout, Reference(folder="layout", tag=tag), Trust()).environments
    digests = [layer.descriptor.digest for layer in environment.layers]
    found = shared(layout, tag, digests, limit=limit)
    return [found.tags.get(digest, ()) for digest in digests], found


def test_a_layer_is_in_the_other_tags_that_have_it(layout: OciLayout) -> None:
    push_environment(layout, packages=[b"same", b"old"], tag="v1")
    push_environment(layout, packages=[b"same", b"new"], tag="v2")
    push_environment(layout, packages=[b"other"], tag="v3")
    assert asked(layout, "v2")[0] == [("v1",), ()]


def test_tags_of_images_and_of_attachments_are_passed_over(layout: OciLayout) -> None:
    push_environment(layout, packages=[b"one"], tag="v1")
    push_image(layout, [b"one"], tag="image")
    push_environment(layout, packages=[b"one"], tag="sha256-" + "a" * 64)
    each, found = asked(layout, "v1")
    assert each == [()]
    assert found.compared == ("image",)


def test_of_many_tags_the_nearest_are_read(layout: OciLayout) -> None:
    for number in range(1, 13):
        push_environment(layout, packages=[b"same"], tag=f"v{number}")
    each, found = asked(layout, "v10", limit=4)
    assert each == [("v8", "v9", "v11", "v12")]
    assert (found.compared, found.others) == (("v8", "v9", "v11", "v12"), 11)
    assert asked(layout, "v1", limit=2)[1].compared == ("v2", "v3")
    assert asked(layout, "v12", limit=2)[1].compared == ("v10", "v11")


def test_tags_of_any_length_and_script_are_put_in_order(layout: OciLayout, tmp_path: Path) -> None:
    push_environment(layout, packages=[b"same"], tag="v1")
    index = json.loads((tmp_path / "layout/index.json").read_text())
    for tag in ("v" + "9" * 5000, "v²", "v٣"):
        entry = index["manifests"][0] | {"annotations": {"org.opencontainers.image.ref.name": tag}}
        index["manifests"].append(entry)
    (tmp_path / "layout/index.json").write_text(json.dumps(index))
    assert sorted(asked(layout, "v1")[1].compared) == sorted(["v" + "9" * 5000, "v²", "v٣"])
