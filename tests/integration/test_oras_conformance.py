"""What Lamella makes, read by oras as an independent client over its own transport, and the reverse."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import oras.oci
import oras.provider
import pytest
from oras.layout import Layout, NewLayoutFromRegistry

from lamella.layers.attaching.attach import attach, fetch
from lamella.layers.attaching.listing import artifacts
from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import Digest, Manifest
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.published.copy import copy
from lamella.layers.published.tagged import tags
from lamella.layers.published.validate import verify_reference
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage
from support.distribution import distribution
from support.published import ARM64, publish, push_environment
from support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

REPORT = "application/vnd.example.report"
UNKNOWN = "application/vnd.unknown.config.v1+json"
"""The type of the config of an artifact by oras: artifactType is not written by it."""


@pytest.fixture(params=[pytest.param("distribution", marks=pytest.mark.engine), "referrers API"])
def host(request: pytest.FixtureRequest) -> Iterator[str]:
    """A registry without the referrers API, and one with it."""
    if request.param == "distribution":
        with distribution() as address:
            yield address
    else:
        with RegistrySimulator().serving() as simulator:
            yield simulator.host


@pytest.fixture
def environment(host: str, tmp_path: Path) -> str:
    """An environment for two platforms in a repository."""
    storage = OciLayout(f"{tmp_path}/made", create=True)
    push_environment(storage, "v1")
    return copy(f"oci:{tmp_path}/made:v1", f"{host}/team/envs:v1").reference.partition("@")[0]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> oras.provider.Registry:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return oras.provider.Registry(insecure=True)


def test_oras_pulls_an_attached_artifact(environment: str, client: oras.provider.Registry, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<p>")
    (tmp_path / "uv.lock").write_text("version = 1")
    attached = attach(environment, [str(tmp_path / "report.html"), str(tmp_path / "uv.lock")], REPORT)
    found = client.pull(attached.artifact, outdir=str(tmp_path / "theirs"))
    assert {Path(path).name: Path(path).read_text() for path in found} == {
        "report.html": "<p>",
        "uv.lock": "version = 1",
    }
    manifest = client.get_manifest(attached.artifact)
    assert (manifest["artifactType"], manifest["subject"]["digest"]) == (REPORT, attached.reference.partition("@")[2])


def test_an_artifact_pushed_by_oras_is_listed_and_fetched(client: oras.provider.Registry, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    with RegistrySimulator().serving() as simulator:
        # oras writes no list for a registry without the referrers API.
        storage = OciLayout(f"{tmp_path}/made", create=True)
        root = push_environment(storage, "v1").descriptor
        reference = copy(f"oci:{tmp_path}/made:v1", f"{simulator.host}/team/envs:v1").reference
        client.push(
            f"{simulator.host}/team/envs:notes",
            files=[f"{tmp_path}/notes.txt:text/plain"],
            disable_path_validation=True,
            subject=oras.oci.Subject(root.media_type, str(root.digest), root.size),
        )
        (found,) = artifacts(reference)
        assert (found.artifact_type, [file.name for file in found.files]) == (UNKNOWN, ["notes.txt"])
        fetch(reference, str(tmp_path / "ours"), UNKNOWN)
        assert (tmp_path / "ours/notes.txt").read_text() == "notes"
        assert tags(f"{simulator.host}/team/envs") == ["v1"]


def test_oras_pulls_the_blobs_of_an_environment_as_they_are(
    host: str, client: oras.provider.Registry, tmp_path: Path
) -> None:
    published = publish(tmp_path / "layout", [{"a.py": "a = 1\n"}, {"b.py": "b = 1\n"}], platform=ARM64, tag="v1")
    reference = copy(published, f"{host}/team/envs:v1").reference
    with closing(open_storage(Reference.parse(reference), Trust())) as storage:
        index = client.get_manifest(reference)
        (entry,) = index["manifests"]
        manifest = Manifest.parse(fetch_document(storage, storage.resolve(entry["digest"])))
    for layer in manifest.layers:
        path = client.download_blob(reference, str(layer.digest), str(tmp_path / layer.digest.hex))
        assert Digest.of(Path(path).read_bytes()) == layer.digest


def test_a_layout_that_oras_copied_from_a_registry_is_whole(
    environment: str, client: oras.provider.Registry, tmp_path: Path
) -> None:
    NewLayoutFromRegistry(str(tmp_path / "theirs"), client, environment, tag="v1")
    assert verify_reference(f"oci:{tmp_path}/theirs:v1", deep=True).faults == ()
    assert OciLayout(f"{tmp_path}/theirs").resolve("v1").digest == OciLayout(f"{tmp_path}/made").resolve("v1").digest


def test_oras_copies_a_layout_of_lamella_to_a_registry(
    host: str, client: oras.provider.Registry, tmp_path: Path
) -> None:
    made = push_environment(OciLayout(f"{tmp_path}/made", create=True), "v1")
    Layout(f"{tmp_path}/made").push_to_registry(client, f"{host}/team/theirs:v1", tag="v1")
    found = verify_reference(f"{host}/team/theirs:v1", deep=True)
    assert (found.faults, found.reference) == ((), f"{host}/team/theirs:v1@{made.descriptor.digest}")
