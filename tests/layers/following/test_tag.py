"""Questions for a tag's digest: which requests, how often, and what a registry's failure changes."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import InvalidReference, NotFound, Unreachable
from lamella.layers.following.tag import FAR, NEAR, TaggedDigest
from lamella.layers.oci.reference import Reference
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage
from support.published import publish, push_environment
from support.registry_simulator import Fault, RegistrySimulator

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.layers.oci.documents import Digest


def pushed(reference: str, content: bytes) -> Digest:
    """Push an environment with that content, and return the digest that the tag has now."""
    parsed = Reference.parse(reference)
    with closing(open_storage(parsed, Trust(), create=True)) as storage:
        push_environment(storage, parsed.tag, packages=[content])
        return storage.resolve(parsed.tag).digest


def test_a_registry_is_asked_by_head_requests_alone() -> None:
    with RegistrySimulator().serving() as registry:
        reference = f"{registry.host}/team/envs:dev"
        first = pushed(reference, b"one")
        with closing(TaggedDigest(reference, Trust())) as tag:
            tag.ask()
            registry.requests.clear()
            assert [tag.ask(), tag.ask()] == [first, first]
            assert [request.method for request in registry.requests] == ["HEAD", "HEAD"]
            second = pushed(reference, b"two")
            assert tag.ask() == second != first


def test_a_layout_is_read_again_when_its_index_changes(tmp_path: Path) -> None:
    first = publish(tmp_path / "images", [{"a": "1"}], tag="dev")
    with closing(TaggedDigest(f"oci:{tmp_path}/images:dev", Trust())) as tag:
        assert first.endswith(str(tag.ask()))
        second = publish(tmp_path / "images", [{"a": "2"}], tag="dev")
        assert second.endswith(str(tag.ask()))


def test_the_pause_grows_while_a_registry_fails_and_is_short_again_afterwards() -> None:
    with RegistrySimulator().serving() as registry:
        reference = f"{registry.host}/team/envs:dev"
        pushed(reference, b"one")
        with closing(TaggedDigest(reference, Trust())) as tag:
            tag.ask()
            registry.faults.append(Fault("HEAD", status=503, times=3))
            for _ in range(3):
                with pytest.raises(Unreachable):
                    tag.ask()
            assert 0.9 * 8 * NEAR <= tag.pause <= 1.1 * 8 * NEAR
            tag.ask()
            assert tag.pause <= 1.1 * NEAR


def test_another_machine_s_registry_is_asked_once_a_second() -> None:
    tag = TaggedDigest("registry.example.com/team/envs:dev", Trust())
    assert 0.9 * FAR <= tag.pause <= 1.1 * FAR


def test_the_interval_can_be_chosen() -> None:
    assert 27 <= TaggedDigest("registry.example.com/team/envs:dev", Trust(), 30.0).pause <= 33


def test_a_missing_tag_is_reported() -> None:
    with RegistrySimulator().serving() as registry, pytest.raises(NotFound, match="no tag 'dev'"):
        TaggedDigest(f"{registry.host}/team/envs:dev", Trust()).ask()


def test_following_a_digest_is_refused() -> None:
    with pytest.raises(InvalidReference, match="a digest never moves; name a tag to follow"):
        TaggedDigest(f"registry.example.com/team/envs@sha256:{'0' * 64}", Trust())
