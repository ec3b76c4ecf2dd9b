"""Environments that an agent frees to make room, and those that it keeps."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from lamella.layers import AgentOptions, NoSpace, StoreError
from support.agents import agent, wait_for
from support.disks import disk
from support.published import publish

pytestmark = [pytest.mark.slow, pytest.mark.root]

SIZE = 6 << 20
ROOM = "size=10m"
"""For one environment of `SIZE`, not for two."""


def published(short_path: Path, name: str) -> str:
    return publish(short_path / "layout", [{f"lib/{name}": os.urandom(SIZE).hex()[:SIZE]}], tag=name)


@pytest.fixture
def options(short_path: Path) -> AgentOptions:
    return AgentOptions(allow=(f"oci:{short_path}",), metrics="", min_free=0, idle=0, every=3600)


def test_a_disk_that_is_full_is_relieved_of_an_unused_environment(short_path: Path, options: AgentOptions) -> None:
    node = short_path / "node"
    with disk(node, ROOM), agent(node, options) as made:
        first = made.give(published(short_path, "first"))
        second = made.give(published(short_path, "second"))
        assert not os.path.exists(first.path)
        assert Path(second.path, "lib/second").stat().st_size == SIZE
        assert any(event.startswith("freed 6.3 MB") for event in made.events), made.events


def test_a_recently_requested_environment_is_not_freed_for_another(short_path: Path, options: AgentOptions) -> None:
    node = short_path / "node"
    with disk(node, ROOM), agent(node, replace(options, idle=3600)) as made:
        first = made.give(published(short_path, "first"))
        with pytest.raises(NoSpace, match=r"agent of the node: .* free, the environment needs"):
            made.give(published(short_path, "second"))
        assert Path(first.path, "lib/first").stat().st_size == SIZE
        assert made.give(first.reference) == first


def test_a_reference_to_keep_is_not_freed_for_another(short_path: Path, options: AgentOptions) -> None:
    node = short_path / "node"
    kept = published(short_path, "first")
    with disk(node, ROOM), agent(node, replace(options, pull=(kept,), every=0.05)) as made:
        wait_for(lambda: "is ready at" in str(made.events))
        with pytest.raises(NoSpace):
            made.give(published(short_path, "second"))
        assert Path(made.give(kept).path, "lib/first").stat().st_size == SIZE


def test_the_kubelet_s_empty_folders_are_removed_and_others_are_not(short_path: Path, options: AgentOptions) -> None:
    environments = short_path / "store/environments"
    (environments / "sha256-00").mkdir(parents=True)
    (environments / "mine").mkdir()
    (environments / "mine/precious").write_text("1")
    with agent(short_path, replace(options, every=0.05)):
        wait_for(lambda: not (environments / "sha256-00").exists())
    assert (environments / "mine/precious").read_text() == "1"


def test_a_new_empty_folder_stays_for_the_pod_that_waits_for_it(short_path: Path, options: AgentOptions) -> None:
    folder = short_path / "store/environments/sha256-00"
    folder.mkdir(parents=True)
    with agent(short_path, replace(options, every=0.05, idle=3600)) as made:
        wait_for(lambda: "checks_total 3" in made.get("/metrics")[1])
    assert folder.exists()


def test_a_folder_that_other_users_can_write_is_refused(short_path: Path, options: AgentOptions) -> None:
    folder = short_path / "environments"
    folder.mkdir()
    folder.chmod(0o777)
    short_path.chmod(0o755)
    with (
        pytest.raises(
            StoreError, match=f"--environments {folder}: every user can write .*; chmod o-w {folder}, or choose"
        ),
        agent(short_path, replace(options, environments=str(folder))),
    ):
        pass
