"""Attachments of an index: by the referrers API, by the tag schema, and in a layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.layers.layout import OciLayout
from lamella.layers.oci.referrers import Artifact, attach, content_of, referrers
from lamella.layers.registry.repository import Registry
from support.distribution import distribution
from support.published import push_environment
from support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamella.layers.oci.storage import Storage

SBOM = Artifact("application/vnd.cyclonedx+json", b'{"bomFormat":"CycloneDX"}', {"org.example": "1"})
NOTE = Artifact("application/vnd.example.note", b"a note")


@pytest.fixture(params=["api", "no api", pytest.param("distribution", marks=pytest.mark.engine), "layout"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "layout":
        yield OciLayout(str(tmp_path / "layout"), create=True)
    elif request.param == "distribution":
        # 2.8 has no referrers API.
        with distribution() as host:
            registry = Registry(host, "team/envs")
            yield registry
            registry.close()
    else:
        simulator = RegistrySimulator()
        simulator.referrers_api = request.param == "api"
        with simulator.serving():
            registry = Registry(simulator.host, "team/envs")
            yield registry
            registry.close()
            schema = [tag for tag in simulator.tags["team/envs"] if tag.startswith("sha256-")]
            assert bool(schema) != simulator.referrers_api


def test_an_attached_document_is_listed_and_read(storage: Storage) -> None:
    subject = push_environment(storage).descriptor
    assert referrers(storage, subject) == ()
    sbom = attach(storage, subject, SBOM)
    note = attach(storage, subject, NOTE)
    assert {entry.digest for entry in referrers(storage, subject)} == {sbom.digest, note.digest}
    (found,) = referrers(storage, subject, SBOM.artifact_type)
    assert found.digest == sbom.digest
    assert content_of(storage, found) == SBOM.content


def test_attaching_again_changes_nothing(storage: Storage) -> None:
    subject = push_environment(storage).descriptor
    assert attach(storage, subject, SBOM) == attach(storage, subject, SBOM)
    assert len(referrers(storage, subject)) == 1


def test_one_subject_does_not_have_anothers_referrers(storage: Storage) -> None:
    subject = push_environment(storage, "v1").descriptor
    other = push_environment(storage, "v2", packages=[b"other"]).descriptor
    attach(storage, subject, SBOM)
    assert referrers(storage, other) == ()
