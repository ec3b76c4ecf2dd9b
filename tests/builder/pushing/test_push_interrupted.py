"""A push that is killed at any moment leaves every tag whole, and the next push finishes the work."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.push import push
from lamella.layers.errors import StoreError
from lamella.layers.layout import OciLayout
from lamella.layers.published.copy import copy
from support.engines import need, need_root
from support.packages import SITE, environment, package
from support.processes import ended, forked
from support.registry_simulator import Fault, RegistrySimulator

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.builder.environment import Environment


def small(prefix: Path, text: str) -> Environment:
    """Two packages, of which the second holds `text`."""
    return environment(
        prefix,
        package(prefix, "alpha", {f"{SITE}/alpha.py": "value = 1\n"}),
        package(prefix, "beta", {f"{SITE}/beta.py": text}),
    )


def kill_before_change(number: int, folder: str) -> None:
    """Kill this process before it opens, renames, links or removes something in `folder` for the `number`-th time."""
    left = number

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        changes = event in {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir"} or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if changes and any(isinstance(each, str) and each.startswith(folder) for each in arguments):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


@pytest.mark.parametrize("before", [True, False], ids=["tag exists", "first push"])
@pytest.mark.slow
def test_a_push_to_a_layout_that_is_killed_at_any_change_leaves_the_tag_whole(tmp_path: Path, before: bool) -> None:
    cache, folder = tmp_path / "cache", tmp_path / "layout"
    old = small(tmp_path / "old", "value = 1\n")
    new = small(tmp_path / "new", "value = 2\n")
    expected = push(f"oci:{tmp_path}/expected:v1", new, cache=LayerCache(str(cache))).reference
    known = {expected.partition("@")[2]}
    if before:
        first = push(f"oci:{tmp_path}/before:v1", old, cache=LayerCache(str(cache))).reference
        known.add(first.partition("@")[2])
    kills = 0
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if before:
            shutil.copytree(tmp_path / "before", folder)

        def push_and_die(number: int = kills + 1) -> None:
            kill_before_change(number, str(folder))
            push(f"oci:{folder}:v1", new, cache=LayerCache(str(cache)))

        with forked(push_and_die) as child:
            _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            break
        kills += 1
        if (folder / "oci-layout").exists() and OciLayout(str(folder)).tags():
            assert copy(f"oci:{folder}:v1", f"oci:{tmp_path}/copy{kills}:v1").reference.partition("@")[2] in known
        else:
            assert not before
        again = push(f"oci:{folder}:v1", new, cache=LayerCache(str(cache)))
        assert copy(again.reference, f"oci:{tmp_path}/again{kills}:v1").reference.endswith(expected.partition("@")[2])
    assert os.WEXITSTATUS(status) == 0
    assert kills > 10, "a push makes more changes than that"


@pytest.mark.parametrize(
    "moment", ["POST .*/blobs/uploads/", "PUT .*/blobs/uploads/", "PUT .*/manifests/sha256:", "PUT .*/manifests/v1"]
)
@pytest.mark.parametrize("before", [True, False], ids=["tag exists", "first push"])
@pytest.mark.slow
def test_a_push_to_a_registry_that_is_killed_leaves_the_tag_as_it_was(
    tmp_path: Path, before: bool, moment: str
) -> None:
    cache = tmp_path / "cache"
    new = small(tmp_path / "new", "value = 2\n")
    reader, writer = os.pipe()
    with open(reader, encoding="utf-8") as reading, open(writer, "w", encoding="utf-8") as writing:

        def push_new() -> None:
            writing.close()
            push(reading.read(), new, cache=LayerCache(str(cache)))

        # A fork takes along the locks that other threads hold: it comes before the registry's threads.
        with forked(push_new) as pushing, RegistrySimulator().serving() as registry:
            reference = f"{registry.host}/team/envs:v1"
            if before:
                push(reference, small(tmp_path / "old", "value = 1\n"), cache=LayerCache(str(cache)))
            tags = dict(registry.tags.get("team/envs", {}))
            registry.faults = [Fault(moment, take=0, meanwhile=lambda: os.kill(pushing, signal.SIGKILL))]
            writing.write(reference)
            writing.close()
            assert ended(pushing) == -signal.SIGKILL
            assert registry.tags.get("team/envs", {}) == tags
            if before:
                copy(reference, f"oci:{tmp_path}/copy:v1")
            pushed = push(reference, new, cache=LayerCache(str(cache))).reference
            assert registry.tags["team/envs"]["v1"] == pushed.partition("@")[2]
            copy(reference, f"oci:{tmp_path}/again:v1")


@pytest.mark.root
@pytest.mark.parametrize("inodes", range(2, 16, 2))
def test_a_first_push_that_runs_out_of_inodes_is_finished_by_the_next(tmp_path: Path, inodes: int) -> None:
    need_root()
    env = small(tmp_path / "env", "value = 1\n")
    cache = LayerCache(str(tmp_path / "cache"))
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = [need("mount"), "-t", "tmpfs"]
    subprocess.run([*mount, "-o", f"size=1m,nr_inodes={inodes}", "tmpfs", str(disk)], check=True)
    try:
        with suppress(StoreError):
            push(f"oci:{disk}/layout:v1", env, cache=cache)
            assert inodes > 12, "a layout has more files and folders than that"
        subprocess.run([*mount, "-o", "remount,nr_inodes=1000", "tmpfs", str(disk)], check=True)
        pushed = push(f"oci:{disk}/layout:v1", env, cache=cache).reference
        copy(pushed, f"oci:{tmp_path}/copy:v1")
        assert not list((disk / "layout").glob(".partial-*"))
    finally:
        subprocess.run([need("umount"), str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["layout", "registry"])
def test_a_push_that_is_killed_at_any_moment_leaves_a_whole_tag_and_cache(tmp_path: Path, where: str) -> None:
    """The layer cache is the same one throughout, so that the next push goes on with what the killed one left in it."""
    chance = random.Random(10)
    cache = LayerCache(str(tmp_path / "cache"))
    killed = 0
    with RegistrySimulator().serving() as registry:
        reference = f"oci:{tmp_path}/out:v1" if where == "layout" else f"{registry.host}/team/envs:v1"
        for text in ("first, which imports", "second"):
            began = time.monotonic()
            push(reference, files(tmp_path / text, text), cache=cache)
            whole = time.monotonic() - began
        for number in itertools.count():
            if killed == 8:
                break
            env = files(tmp_path / f"env{number}", f"content {number}\n" * 999)
            with forked(lambda env=env: push(reference, env, cache=cache)) as pushing:  # type: ignore[misc]
                time.sleep(chance.random() * whole)
                os.kill(pushing, signal.SIGKILL)
                _, status = os.waitpid(pushing, 0)
            killed += os.WIFSIGNALED(status)
            copy(reference, f"oci:{tmp_path}/copy{number}:v1")
            expected = push(f"oci:{tmp_path}/expected:v1", env, cache=LayerCache(str(tmp_path / "own"))).reference
            again = push(reference, env, cache=cache).reference
            assert again.partition("@")[2] == expected.partition("@")[2]
            copy(again, f"oci:{tmp_path}/again{number}:v1")


def files(prefix: Path, text: str) -> Environment:
    """Packages without code, which need no compiler: all but one change with `text`."""
    names = [package(prefix, f"p{number}", {f"share/p{number}": f"{number} {text}"}) for number in range(6)]
    return environment(prefix, *names, package(prefix, "same", {"share/same": "same"}))
