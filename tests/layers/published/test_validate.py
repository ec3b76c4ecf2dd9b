"""A reference is checked as a whole, in a registry and in a layout, and each fault is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import Denied, NotFound
from lamella.layers.layout import OciLayout
from lamella.layers.oci import referrers
from lamella.layers.oci.annotations import PACKAGE
from lamella.layers.oci.documents import LAYER_GZIP, Digest, Index, Layer, Manifest
from lamella.layers.oci.storage import fetch_document
from lamella.layers.published.copy import copy
from lamella.layers.published.validate import verify_reference
from lamella.layers.settings.trust import Trust
from lamella.layers.signing import cosign
from support import tars
from support.keys import key_pair
from support.published import AMD64, ARM64, blob, image, publish_layers, push_environment, push_image, push_index
from support.registry_simulator import Fault, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.layers.oci.documents import Descriptor

ONE = Digest.of(b"one")


@pytest.fixture
def simulator() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as running:
        yield running


@pytest.fixture
def layout(tmp_path: Path) -> str:
    """An environment for two platforms, signed, with a document attached to the index and one to an image."""
    reference = f"oci:{tmp_path}/layout:v1"
    storage = OciLayout(f"{tmp_path}/layout", create=True)
    index = push_environment(storage, "v1", [AMD64, ARM64])
    referrers.attach(storage, index.descriptor, referrers.Artifact("application/vnd.example.note", b"a note"))
    child = Index.parse(index.content).manifests[0]
    referrers.attach(storage, child, referrers.Artifact("application/vnd.example.scan", b"a scan"))
    cosign.sign(reference, key_pair(tmp_path)[0])
    return reference


def file_of(reference: str, digest: Digest) -> Path:
    return Path(reference.split(":")[1], "blobs", digest.algorithm, digest.hex)


def everything(reference: str) -> list[str]:
    """The digests of all files of a layout, but those that no tag leads to."""
    return [f"{path.parent.name}:{path.name}" for path in sorted(Path(reference.split(":")[1], "blobs").glob("*/*"))]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.slow
def test_a_whole_reference_has_no_faults(layout: str, simulator: RegistrySimulator, deep: bool) -> None:
    there = copy(layout, f"{simulator.host}/team/envs:v1").reference
    for reference in (layout, there):
        found = verify_reference(reference, deep=deep)
        assert (found.faults, found.heal) == ((), "")
        # The index, two manifests for each platform, two attached documents, the signature.
        assert found.documents == 8
        # Two layers, a config for each platform, the empty config, two attached files, payload and config of the signature.
        assert found.blobs == 9


@pytest.mark.slow
def test_each_missing_blob_and_document_of_a_layout_is_a_fault(layout: str) -> None:
    unnoticed = []
    for digest in everything(layout):
        path = file_of(layout, Digest.parse(digest))
        content = path.read_bytes()
        path.unlink()
        found = verify_reference(layout)
        if not any(digest in f"{fault.digest} {fault.reason}" for fault in found.faults):
            unnoticed.append(content)
        path.write_bytes(content)
    # The list of attached documents as it was before the last one was added.
    assert [len(Index.parse(content).manifests) for content in unnoticed] == []


@pytest.mark.parametrize("broken", ["blob", "manifest"])
@pytest.mark.slow
def test_a_hole_in_a_registry_is_named_with_the_command_that_repairs_it(
    layout: str, simulator: RegistrySimulator, broken: str
) -> None:
    copy(layout, f"{simulator.host}/team/envs:v1")
    index = Index.parse(fetch_document(OciLayout(layout.split(":")[1]), OciLayout(layout.split(":")[1]).resolve("v1")))
    if broken == "blob":
        del simulator.blobs["team/envs"][str(ONE)]
        lost, what = ONE, "layer of one"
    else:
        lost, what = index.manifests[1].digest, "package manifest"
        del simulator.manifests["team/envs"][str(lost)]
    found = verify_reference(f"{simulator.host}/team/envs:v1")
    assert [(fault.digest, fault.what, fault.reason) for fault in found.faults] == [(lost, what, "missing")]
    assert f"lamella push {simulator.host}/team/envs:v1" in found.heal


@pytest.mark.slow
def test_a_blob_of_another_size_is_found_without_reading_all(layout: str, simulator: RegistrySimulator) -> None:
    copy(layout, f"{simulator.host}/team/envs:v1")
    simulator.blobs["team/envs"][str(ONE)] = b"on"
    file_of(layout, ONE).write_bytes(b"on")
    for reference in (layout, f"{simulator.host}/team/envs:v1"):
        simulator.requests.clear()
        (fault,) = verify_reference(reference).faults
        assert fault.digest == ONE
        assert "2 bytes" in fault.reason or "ended 1 bytes before its 3 bytes" in fault.reason
        assert len(simulator.asked("GET .*/blobs/sha256:[0-9a-f]+")) < 9


@pytest.mark.slow
def test_changed_bytes_of_the_right_size_are_found_by_a_deep_check(layout: str, simulator: RegistrySimulator) -> None:
    copy(layout, f"{simulator.host}/team/envs:v1")
    simulator.blobs["team/envs"][str(ONE)] = b"two"
    file_of(layout, ONE).write_bytes(b"two")
    for reference in (layout, f"{simulator.host}/team/envs:v1"):
        assert verify_reference(reference).faults == ()
        (fault,) = verify_reference(reference, deep=True).faults
        assert (fault.digest, fault.what) == (ONE, "layer of one")
        assert "has other content" in fault.reason
    # The layout has a file of this name and size: a push would leave it.
    assert f"remove {file_of(layout, ONE)}" in verify_reference(layout, deep=True).heal


def test_a_changed_manifest_is_a_fault_even_of_the_index_itself(layout: str) -> None:
    root = OciLayout(layout.split(":")[1]).resolve("v1")
    path = file_of(layout, root.digest)
    path.write_bytes(path.read_bytes().replace(b"linux", b"lunix"))
    (fault,) = verify_reference(layout).faults
    assert (fault.digest, fault.what) == (root.digest, "index")


def test_a_wrong_diff_id_is_found_by_a_deep_check(tmp_path: Path) -> None:
    storage = OciLayout(str(tmp_path / "layout"), create=True)
    made, content = tars.layer(tars.tree({"opt/env/x": os.urandom(1000)}), LAYER_GZIP)
    other, _ = tars.layer(tars.tree({"opt/env/y": b"y"}), LAYER_GZIP)
    publish_layers(storage, "right", [(made, content)])
    publish_layers(storage, "wrong", [(Layer(made.descriptor, other.diff_id), content)])
    assert verify_reference(f"oci:{tmp_path}/layout:right", deep=True).faults == ()
    assert verify_reference(f"oci:{tmp_path}/layout:wrong").faults == ()
    (fault,) = verify_reference(f"oci:{tmp_path}/layout:wrong", deep=True).faults
    assert fault.digest == made.descriptor.digest
    assert f"it unpacks to {made.diff_id}" in fault.reason


def test_two_configs_that_contradict_each_other_are_found_without_reading_layers(tmp_path: Path) -> None:
    storage = OciLayout(str(tmp_path / "layout"), create=True)
    layer = blob(b"content").pushed(storage).descriptor
    entries = []
    for diff_ids in ([layer.digest], [ONE], []):
        config, manifest = image([layer], diff_ids)
        config.pushed(storage)
        entries.append(manifest.pushed(storage).descriptor)
    push_index(storage, entries, "v1")
    reasons = [fault.reason for fault in verify_reference(f"oci:{tmp_path}/layout:v1").faults]
    assert reasons == [
        f"diff_id of layer of type {layer.media_type} is {ONE}, not {layer.digest}",
        "the manifest has 1 layers and its config 0",
    ]


def test_a_missing_required_signature_is_a_fault(tmp_path: Path) -> None:
    push_environment(OciLayout(f"{tmp_path}/layout", create=True), "v1")
    _, public = key_pair(tmp_path)
    (fault,) = verify_reference(f"oci:{tmp_path}/layout:v1", trust=Trust(required_key=public)).faults
    assert fault.what == "signature"
    assert "not signed; sign it with lamella push --sign" in fault.reason


def test_an_attached_document_whose_file_is_gone_is_named_by_its_type(layout: str) -> None:
    file_of(layout, Digest.of(b"a note")).unlink()
    (fault,) = verify_reference(layout).faults
    assert (fault.what, fault.reason) == ("application/vnd.example.note", "missing")


def test_names_from_outside_are_shown_escaped(tmp_path: Path) -> None:
    storage = OciLayout(f"{tmp_path}/layout", create=True)
    layer = blob(b"content", {PACKAGE: "\x1b[31mred"}).pushed(storage).descriptor
    config, manifest = image([layer])
    config.pushed(storage)
    manifest.pushed(storage, "v1")
    file_of(f"oci:{tmp_path}/layout:v1", layer.digest).unlink()
    (fault,) = verify_reference(f"oci:{tmp_path}/layout:v1").faults
    assert fault.what == r"layer of \x1b[31mred"


def test_an_image_without_an_index_is_checked_too(tmp_path: Path) -> None:
    made = push_image(OciLayout(f"{tmp_path}/layout", create=True), [b"layer"], "v1")
    assert verify_reference(f"oci:{tmp_path}/layout:v1").faults == ()
    config: Descriptor = Manifest.parse(made.content).config
    file_of(f"oci:{tmp_path}/layout:v1", config.digest).unlink()
    (fault,) = verify_reference(f"oci:{tmp_path}/layout:v1").faults
    assert (fault.digest, fault.what, fault.reason) == (config.digest, "config", "missing")


def test_a_missing_tag_and_a_registry_that_denies_are_errors(simulator: RegistrySimulator, layout: str) -> None:
    copy(layout, f"{simulator.host}/team/envs:v1")
    with pytest.raises(NotFound, match="it has v1"):
        verify_reference(f"{simulator.host}/team/envs:v2")
    simulator.faults.append(Fault("HEAD .*/blobs/", times=1000, status=403))
    with pytest.raises(Denied):
        verify_reference(f"{simulator.host}/team/envs:v1")
