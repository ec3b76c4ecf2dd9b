"""Documents with anything in them: an environment is read, or one sentence says why not."""

from __future__ import annotations

import contextlib
import copy
import json
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.layers.errors import LayersError, NotFound
from lamella.layers.oci import annotations as names
from lamella.layers.oci.documents import (
    CONFIG,
    INDEX,
    LAYER_TAR,
    MANIFEST,
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    Manifest,
    Platform,
)
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import VerifiedReader
from lamella.layers.published import environment as published
from lamella.layers.published import findings, preflight
from lamella.layers.published.inspection import inspect
from lamella.layers.published.shared_layers import shared
from lamella.layers.pulling.pull import plan
from lamella.layers.settings.trust import Trust
from lamella.layers.text import escaped
from support.published import image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.layers.oci.storage import Reader

pytestmark = pytest.mark.slow

HERE = Platform("linux", "amd64")
ODD: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [
            None, True, -1, 1.5, 10**18, 10**19, 10**400, "", "\x1b[2J", "\0", "\ud800", "\u202e", "9" * 5000, "..", "/", "/../x",
            "sha256:", "sha256:" + "0" * 64, "/opt" * 3000, "a b", "a:b", [], {}, [[]], {"a": {}}, "x" * 70_000, INDEX, MANIFEST,
            CONFIG, "unknown", {"os": "linux"}, {names.IMAGE: "x"}, {"\ud800": "x"}, [None], ["\ud800"],
        ]
    ),
    st.text(max_size=20),
    st.integers(),
)  # fmt: skip
KEYS = st.sampled_from(
    [
        "mediaType", "digest", "size", "annotations", "platform", "artifactType", "urls", "subject", "config", "layers",
        "manifests", "fsLayers", "os", "architecture", "variant", "rootfs", "diff_ids", "history", "Layers", "Config",
        names.PREFIX, names.GLIBC, names.CPU, names.DRIVERS, names.CERTIFICATES, names.PYTHON, names.IMAGE, names.UNPACKED,
        names.PACKAGE, names.KEY,
    ]
)  # fmt: skip


class Memory:
    """A storage in memory whose one tag names an index."""

    def __init__(self) -> None:
        self.content: dict[Digest, bytes] = {}
        self.attached: tuple[Descriptor, ...] = ()
        self.root: Descriptor | None = None

    def add(self, media_type: str, content: bytes) -> dict[str, Any]:
        """Keep `content` and return its descriptor."""
        descriptor = Descriptor.of(media_type, content)
        self.content[descriptor.digest] = content
        return descriptor.to_value()

    def resolve(self, _: str) -> Descriptor:
        assert self.root
        return self.root

    def tags(self) -> list[str]:
        return ["v1", "v2"]

    def referrers(self, _: Digest) -> tuple[Descriptor, ...] | None:
        return self.attached

    @contextmanager
    def fetch(self, descriptor: Descriptor) -> Iterator[Reader]:
        if descriptor.digest not in self.content:
            raise NotFound(f"{descriptor.digest}: not found")
        yield VerifiedReader(BytesIO(self.content[descriptor.digest]), descriptor)


def places(value: object, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of each value in a document."""
    inner: list[tuple[Any, object]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [at, *(place for key, each in inner for place in places(each, (*at, key)))]


def mutated(data: st.DataObject, document: dict[str, Any]) -> bytes:
    """The document with up to three values replaced, removed, repeated or added; or with its bytes changed."""
    value: Any = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(0, 3))):
        *parents, last = data.draw(st.sampled_from([place for place in places(value) if place]))
        holder = value
        for key in parents:
            holder = holder[key]
        change = data.draw(st.sampled_from(["replace", "remove", "repeat", "add"]))
        if change == "remove":
            del holder[last]
        elif change == "repeat" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
        elif change == "add" and isinstance(holder, dict):
            holder[data.draw(KEYS)] = copy.deepcopy(data.draw(ODD))
        else:
            holder[last] = copy.deepcopy(data.draw(ODD))
        if not places(value)[1:]:
            break
    content = json.dumps(value).encode()
    if data.draw(st.integers(0, 9)) == 0:
        at = data.draw(st.integers(0, len(content)))
        junk = data.draw(
            st.sampled_from(
                [b"[", b"{", b'"', b"\\", b"\xff", b"NaN", b"1e999", b"\xed\xa0\x80", b",", b"", b"[" * 5000]
            )
        )
        content = content[:at] + junk + content[at + data.draw(st.integers(0, 3)) :]
    return content


def environment(data: st.DataObject, storage: Memory) -> None:
    """An index of one environment, each of its documents maybe mutated."""
    layers = [Descriptor(LAYER_TAR, Digest.of(name), 3, {names.PACKAGE: name.decode()}) for name in (b"one", b"two")]
    needs = {names.PREFIX: "/opt/env", names.GLIBC: "2.28", names.CPU: "2", names.DRIVERS: "libcuda.so.1"}
    config, manifest = image(layers, platform=HERE, annotations=needs)
    described = storage.add(CONFIG, mutated(data, json.loads(config.content)))
    made = json.loads(manifest.content) | {"config": described}
    runnable = storage.add(MANIFEST, mutated(data, made))
    packages = storage.add(MANIFEST, mutated(data, made))
    entries = [
        runnable | {"platform": HERE.to_value()},
        packages
        | {"annotations": {names.IMAGE: runnable["digest"]}, "platform": Platform("unknown", "unknown").to_value()},
    ]
    index = mutated(data, {"manifests": entries, "mediaType": INDEX, "schemaVersion": 2})
    storage.root = Descriptor.from_value(storage.add(INDEX, index))


def use(storage: Memory, platform: Platform | None) -> None:
    """Read it as every verb does."""
    found = published.read_index(storage, Reference.parse("example.org/team/envs:v1"), Trust(), platform)
    for each in found.environments:
        assert repr(each)
        assert repr(plan(each.layers, ()))
        assert plan(each.layers, ()).unpacked >= 0
        preflight.unmet_needs(each)
        for package in each.packages:
            assert escaped(repr(package)).encode()
        json.dumps([each.prefix, each.python, each.glibc, each.drivers, each.certificates]).encode()
    shared(storage, "v1", [layer.descriptor.digest for each in found.environments for layer in each.layers])  # type: ignore[arg-type] # reads only
    published.for_platform(found, HERE)


@given(st.data(), st.sampled_from([None, HERE, Platform("linux", "arm64", "v8")]))
def test_an_environment_of_any_documents_is_read_or_refused(data: st.DataObject, platform: Platform | None) -> None:
    storage = Memory()
    environment(data, storage)
    with contextlib.suppress(LayersError):
        use(storage, platform)


@given(st.data())
def test_any_attached_findings_are_read_or_refused(data: st.DataObject) -> None:
    storage = Memory()
    finding = {"severity": "warning", "kind": "patched", "subject": "p", "message": "changed"}
    document = storage.add(
        findings.MEDIA_TYPE, mutated(data, {"platform": "linux/amd64", "findings": [finding, finding]})
    )
    config = storage.add("application/vnd.oci.empty.v1+json", b"{}")
    manifest = mutated(
        data, {"config": config, "layers": [document], "artifactType": findings.MEDIA_TYPE, "mediaType": MANIFEST}
    )
    described = storage.add(MANIFEST, manifest) | {"artifactType": findings.MEDIA_TYPE}
    storage.attached = (Descriptor.from_value(described),)
    with contextlib.suppress(LayersError):
        for platform, each in findings.attached(storage, storage.attached[0]):  # type: ignore[arg-type] # reads only
            assert escaped(f"{platform} {each.message}").encode()


@given(st.sampled_from([Manifest, Index, ImageConfig]), st.data())
def test_a_document_that_is_read_is_written_and_read_the_same(noun: Any, data: st.DataObject) -> None:
    storage = Memory()
    environment(data, storage)
    for content in storage.content.values():
        with contextlib.suppress(LayersError):
            read = noun.parse(content)
            assert noun.parse(read.to_json()) == read


@given(st.text() | st.text("abc/:@.-_sha256", max_size=60))
def test_any_reference_is_parsed_or_refused(text: str) -> None:
    for parse in (Reference.parse, Platform.parse, Digest.parse):
        with contextlib.suppress(LayersError):
            parsed: Any = parse(text)
            assert parse(str(parsed)) == parsed
    with contextlib.suppress(LayersError):
        if text.startswith("oci:"):
            inspect(text)
