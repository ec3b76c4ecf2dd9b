from __future__ import annotations

from lamella.builder.layer.cache import BuiltLayer
from lamella.builder.layer.plan import WantedLayer, plan
from lamella.layers.oci.documents import LAYER_ZSTD, Digest


def built(name: str) -> BuiltLayer:
    return BuiltLayer(Digest.of(name.encode()), 10, Digest.of(name.encode()), 20, LAYER_ZSTD)


def test_a_layer_is_reused_uploaded_or_built_in_this_order() -> None:
    wanted = [WantedLayer(name, (name,), 1) for name in ("there", "here", "both", "nowhere", "new")]
    known = {name: built(name) for name in ("there", "here", "both", "nowhere")}
    decided = plan(
        "oci:x:y",
        wanted,
        known,
        lambda one: one in (built("here"), built("both")),
        {str(built("there").digest), str(built("both").digest)},
    )
    assert [(layer.wanted.key, layer.action) for layer in decided.layers] == [
        ("there", "reuse"), ("here", "upload"), ("both", "reuse"), ("nowhere", "build"), ("new", "build"),
    ]  # fmt: skip
    assert decided.upload_size == 10
