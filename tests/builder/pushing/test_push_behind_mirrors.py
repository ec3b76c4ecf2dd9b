"""A push with configured mirrors: only the registry's answers decide what to upload."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING

import pytest

from lamella.builder.image.documents import ImageSettings
from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.layers.oci.documents import Digest
from lamella.layers.registry.repository import Registry
from lamella.layers.settings.trust import Trust
from support.packages import SITE, environment, package
from support.published import push_image
from support.registry_simulator import Fault, RegistrySimulator

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_a_push_moves_the_tag_despite_a_mirror_with_an_old_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = LayerCache(str(tmp_path / "cache"))
    env = environment(tmp_path / "env", package(tmp_path / "env", "alpha", {f"{SITE}/alpha.py": "value = 1\n"}))
    with RegistrySimulator().serving() as registry, RegistrySimulator().serving() as mirror:
        reference = f"{registry.host}/team/envs:v1"
        mine = push(reference, env, cache=cache)
        for kind in ("blobs", "manifests", "tags"):
            setattr(mirror, kind, copy.deepcopy(getattr(registry, kind)))
        # A colleague moves the tag; the mirror still has the old one.
        push(reference, env, PushOptions(image=ImageSettings(env=("A=1",))), cache=cache)
        folder = tmp_path / "certs.d" / registry.host
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(f'[host."http://{mirror.host}"]\n')
        trust = Trust(hosts_dir=str(tmp_path / "certs.d"))
        again = push(reference, env, trust=trust, cache=cache)
        assert again.reference == mine.reference
        assert registry.tags["team/envs"]["v1"] == mine.reference.partition("@")[2]
        assert not mirror.requests


@pytest.mark.slow
def test_a_layer_of_the_base_that_a_mirror_falsifies_comes_from_its_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = environment(tmp_path / "env", package(tmp_path / "env", "alpha", {f"{SITE}/alpha.py": "value = 1\n"}))
    content = os.urandom(5000)
    digest = Digest.of(content)
    with (
        RegistrySimulator().serving() as bases,
        RegistrySimulator().serving() as registry,
        RegistrySimulator().serving() as mirror,
    ):
        there = Registry(bases.host, "team/base")
        push_image(there, [content], "v1")
        there.close()
        mirror.faults = [Fault(f"GET .*/blobs/{digest}", 1, 200, body=bytes(5000))]
        folder = tmp_path / "certs.d" / bases.host
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(f'[host."http://{mirror.host}"]\n')
        trust = Trust(hosts_dir=str(tmp_path / "certs.d"))
        cache = LayerCache(str(tmp_path / "cache"))
        push(
            f"{registry.host}/team/envs:v1",
            env,
            PushOptions(base=f"{bases.host}/team/base:v1"),
            trust=trust,
            cache=cache,
        )
        assert mirror.faults[0].times == 0
        assert registry.blobs["team/envs"][str(digest)] == content
