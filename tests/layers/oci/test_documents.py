"""The nouns of OCI: canonical bytes, a round trip without loss, and a refusal of what could be read in two ways."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.layers.errors import InvalidContent
from lamella.layers.oci.documents import (
    CONFIG,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX,
    LAYER_TAR,
    LAYER_ZSTD,
    MANIFEST,
    MAX_DOCUMENT,
    UNKNOWN_PLATFORM,
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    Layer,
    Manifest,
    Platform,
    canonical_json,
    layers_of,
)

EMPTY = Digest.of(b"")

words = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-+/", min_size=1, max_size=20)
texts = st.text(max_size=20).filter(lambda text: text.isprintable())
notes = st.dictionaries(words, texts, max_size=3)
media_types = st.sampled_from([CONFIG, LAYER_ZSTD, MANIFEST, "text/plain; charset=utf-8"])
digests = st.builds(lambda text: Digest.of(text.encode()), words)
platforms = st.builds(Platform, words, words, st.one_of(st.just(""), words))
descriptors = st.builds(
    Descriptor,
    media_types,
    digests,
    st.integers(0, 1 << 50),
    notes,
    st.one_of(st.none(), platforms),
    st.one_of(st.just(""), words),
)
manifests = st.builds(
    Manifest,
    descriptors,
    st.lists(descriptors, max_size=3).map(tuple),
    notes,
    st.sampled_from([MANIFEST, DOCKER_MANIFEST]),
    st.one_of(st.just(""), words),
    st.one_of(st.none(), descriptors),
)
indexes = st.builds(
    Index,
    st.lists(descriptors, max_size=3).map(tuple),
    notes,
    st.sampled_from([INDEX, DOCKER_INDEX]),
    st.one_of(st.just(""), words),
    st.one_of(st.none(), descriptors),
)
lists = st.lists(texts, max_size=3).map(tuple)
configs = st.builds(
    ImageConfig,
    platforms,
    st.lists(digests, max_size=3).map(tuple),
    lists,
    lists,
    lists,
    texts,
    texts,
    notes,
    words,
    st.lists(notes, max_size=3).map(tuple),
    st.dictionaries(st.sampled_from(["ExposedPorts", "StopSignal", "Shell"]), st.one_of(texts, notes), max_size=3),
)


@pytest.mark.slow
@settings(max_examples=50)
@given(st.one_of(manifests, indexes, configs))
def test_a_document_is_the_same_after_a_round_trip(value: Manifest | Index | ImageConfig) -> None:
    content = value.to_json()
    assert type(value).parse(content) == value
    assert type(value).parse(content).to_json() == content


@pytest.mark.slow
@given(notes)
def test_equal_values_have_equal_bytes_in_whatever_order_they_were_made(values: dict[str, str]) -> None:
    backwards = dict(reversed(values.items()))
    one = Descriptor(LAYER_TAR, EMPTY, 0, values)
    other = Descriptor(LAYER_TAR, EMPTY, 0, backwards)
    assert Manifest(one, ()).to_json() == Manifest(other, ()).to_json()


def test_the_bytes_of_a_manifest_do_not_change_with_our_versions() -> None:
    config = Descriptor(CONFIG, EMPTY, 0)
    layer = Descriptor(LAYER_ZSTD, EMPTY, 5, {"dev.lamella.package": "naïve"})
    content = Manifest(config, (layer,), {"b": "2", "a": "1"}).to_json()
    assert hashlib.sha256(content).hexdigest() == "ea94702f437e4dad11a1be37191960a0e67ff9da00be5decdcaba1af5e041b1f"
    index = Index((Descriptor(MANIFEST, EMPTY, 0, {}, UNKNOWN_PLATFORM),)).to_json()
    assert hashlib.sha256(index).hexdigest() == "24e18e49e0623cee2a47784353782894e954a210bebdf91e87746da034070f2c"


@given(st.binary(max_size=100))
@pytest.mark.slow
def test_any_bytes_are_a_document_or_a_clear_error(content: bytes) -> None:
    for noun in (Manifest, Index, ImageConfig):
        with pytest.raises(InvalidContent):
            noun.parse(content)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@pytest.mark.slow
@given(
    st.sampled_from(
        ["config", "layers", "manifests", "annotations", "mediaType", "subject", "rootfs", "os", "history"]
    ),
    json_values,
)
def test_any_field_of_another_kind_is_a_clear_error_or_no_matter(key: str, value: object) -> None:
    config = Descriptor(CONFIG, EMPTY, 0).to_value()
    documents: list[tuple[Any, dict[str, Any]]] = [
        (Manifest, {"config": config, "layers": []}),
        (Index, {"manifests": []}),
        (ImageConfig, {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}),
    ]
    for noun, document in documents:
        with contextlib.suppress(InvalidContent):
            noun.parse(canonical_json(document | {key: value}))


@pytest.mark.parametrize(
    "text",
    [
        "sha256:../../../../etc/passwd",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "a" * 64 + "\n",
        "sha512:" + "a" * 64,
        "md5:" + "a" * 32,
        "sha256",
        "",
        None,
        5,
        ["sha256:" + "a" * 64],
    ],
)
def test_a_digest_is_of_a_known_algorithm_and_can_be_a_files_name(text: object) -> None:
    with pytest.raises(InvalidContent, match=r"not a digest|a digest is missing"):
        Digest.parse(text)


def test_a_digest_is_read_and_written() -> None:
    text = "sha512:" + "a" * 128
    assert str(Digest.parse(text)) == text
    assert Digest.parse(text).short == "a" * 12


@pytest.mark.parametrize("size", [-1, 1.5, "5", True, None, 1 << 63, 10**400])
def test_a_size_is_a_whole_number_of_bytes(size: object) -> None:
    value = {"mediaType": LAYER_TAR, "digest": str(EMPTY), "size": size}
    with pytest.raises(InvalidContent, match="a descriptor's size is"):
        Descriptor.from_value(value)


def test_a_foreign_layer_is_refused() -> None:
    value = {"mediaType": LAYER_TAR, "digest": str(EMPTY), "size": 0, "urls": ["https://elsewhere.example/layer"]}
    with pytest.raises(InvalidContent, match="foreign layers are not fetched from elsewhere"):
        Descriptor.from_value(value)


@pytest.mark.parametrize(
    ("noun", "more"),
    [
        (Manifest, {"manifests": []}),
        (Manifest, {"fsLayers": []}),
        (Index, {"layers": []}),
        (Index, {"config": {}}),
        (Index, {"fsLayers": []}),
    ],
)
def test_a_document_that_is_two_things_at_once_is_refused(noun: Any, more: dict[str, Any]) -> None:
    own = {"config": Descriptor(CONFIG, EMPTY, 0).to_value(), "layers": []} if noun is Manifest else {"manifests": []}
    with pytest.raises(InvalidContent, match="refused as ambiguous"):
        noun.parse(canonical_json(own | more))


@pytest.mark.parametrize("noun", [Manifest, Index])
def test_a_document_that_calls_itself_something_else_is_refused(noun: Any) -> None:
    own: dict[str, Any] = {"config": Descriptor(CONFIG, EMPTY, 0).to_value(), "layers": [], "manifests": []}
    del own["manifests" if noun is Manifest else "layers"]
    own.pop("config" if noun is Index else "", None)
    with pytest.raises(InvalidContent, match="has the media type text/html"):
        noun.parse(canonical_json(own | {"mediaType": "text/html"}))


def test_a_document_with_one_key_twice_is_refused() -> None:
    content = b'{"manifests": [], "manifests": []}'
    with pytest.raises(InvalidContent, match="has manifests twice"):
        Index.parse(content)


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "-" + "9" * 5000, "1" + "0" * 100_000]
)
def test_a_number_that_json_or_a_file_size_cannot_have_is_refused(number: str) -> None:
    content = b'{"manifests": [], "other": %s}' % number.encode()
    with pytest.raises(InvalidContent, match="is not JSON"):
        Index.parse(content)


@pytest.mark.parametrize("text", ['"\\ud800"', '"a\\u0000b"', '["\\udc80"]', '{"\\ud800": 1}', '"\\udc00\\ud800"'])
def test_a_text_that_a_file_name_cannot_hold_is_refused_anywhere_in_a_document(text: str) -> None:
    with pytest.raises(InvalidContent, match="not UTF-8 or holds a NUL"):
        Index.parse(b'{"manifests": [], "other": %s}' % text.encode())


def test_escapes_that_spell_whole_characters_are_read() -> None:
    content = b'{"manifests": [], "annotations": {"a": "\\u003c\\ud83d\\ude00\\\\u0000"}}'
    assert Index.parse(content).annotations == {"a": "<\U0001f600\\u0000"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-le", "utf-8-sig"])
def test_a_document_is_read_as_utf_8_alone(encoding: str) -> None:
    with pytest.raises(InvalidContent, match="is not JSON"):
        Index.parse('{"manifests": []}'.encode(encoding))


@pytest.mark.parametrize("key", ["Layers", "LAYERS", "layer\u017f"])
def test_a_key_that_other_readers_take_for_a_field_is_refused(key: str) -> None:
    document = {"config": Descriptor(CONFIG, EMPTY, 0).to_value(), "layers": [], key: []}
    with pytest.raises(InvalidContent, match="for layers: refused as ambiguous"):
        Manifest.parse(canonical_json(document))


@pytest.mark.parametrize("text", ["", "text", "a/b\r\nHost: x", "a/b\x1b", "é/x", "a/" + "b" * 300])
def test_a_media_type_fits_a_header(text: str) -> None:
    with pytest.raises(InvalidContent, match="not a media type"):
        Descriptor.from_value({"mediaType": text, "digest": str(EMPTY), "size": 0})


@pytest.mark.parametrize(
    "more", [{"history": [{"created_by": [[[]]]}]}, {"config": {"Shell": [[[]]]}}, {"author": [[[]]]}]
)
def test_a_part_that_is_kept_as_it_is_is_not_nested_deeply(more: dict[str, Any]) -> None:
    document = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": []}} | more
    assert ImageConfig.parse(canonical_json(document)).to_json()
    deep = canonical_json(document).replace(b"[[[]]]", b"[" * 300 + b"]" * 300)
    with pytest.raises(InvalidContent, match="nested more than 16 levels deep"):
        ImageConfig.parse(deep)


@pytest.mark.parametrize("content", [b"[]", b"5", b"<html>", b"[" * 100_000, b'{"a": "\\ud800"', b"\xff\xfe"])
def test_content_that_is_not_a_json_object_is_reported(content: bytes) -> None:
    with pytest.raises(InvalidContent, match=r"is not (JSON|a JSON object)"):
        Manifest.parse(content)


def test_a_document_of_more_than_four_megabytes_is_refused() -> None:
    with pytest.raises(InvalidContent, match=r"larger than 4\.2 MB"):
        Manifest.parse(b" " * (MAX_DOCUMENT + 1))


def test_a_config_with_another_number_of_layers_than_its_manifest_is_refused() -> None:
    config = Descriptor(CONFIG, EMPTY, 0)
    layer = Descriptor(LAYER_TAR, EMPTY, 0)
    diff_id = Digest.of(b"tar")
    made = ImageConfig(Platform("linux", "amd64"), (diff_id,))
    assert layers_of(Manifest(config, (layer,)), made) == (Layer(layer, diff_id),)
    with pytest.raises(InvalidContent, match="the manifest has 2 layers and its config 1"):
        layers_of(Manifest(config, (layer, layer)), made)


def test_a_config_that_docker_wrote_is_read() -> None:
    content = json.dumps(
        {
            "os": "linux",
            "architecture": "arm64",
            "variant": "v8",
            "config": {"Env": None, "Cmd": ["sh"], "Volumes": {"/x": {}}, "Labels": None, "OnBuild": None},
            "rootfs": {"type": "layers", "diff_ids": [str(EMPTY)]},
            "history": [{"created_by": "COPY", "empty_layer": True}, {}],
        }
    ).encode()
    config = ImageConfig.parse(content)
    assert config.platform == Platform("linux", "arm64", "v8")
    assert config.cmd == ("sh",)
    assert config.env == ()
    assert config.history == ({"created_by": "COPY", "empty_layer": True}, {})
    assert config.more == {"Volumes": {"/x": {}}}
    assert ImageConfig.parse(config.to_json()) == config


@pytest.mark.parametrize("text", ["linux", "linux/", "/amd64", "linux/arm/v7/x", ""])
def test_a_platform_has_a_system_and_an_architecture(text: str) -> None:
    with pytest.raises(InvalidContent, match="not a platform; write os/architecture, such as linux/amd64"):
        Platform.parse(text)


def test_a_platform_is_read_and_written() -> None:
    assert str(Platform.parse("linux/arm/v7")) == "linux/arm/v7"
    assert Platform.parse("linux/amd64") == Platform("linux", "amd64")
    assert Platform.here().os
