"""A push where nodes' mirrors are configured: what is written is decided by the registry alone."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from lamella.builder.cache import LayerCache
from lamella.builder.image import Settings
from lamella.builder.push import push_environment
from support.packages import SITE, environment, package
from support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from pathlib import Path


def test_a_push_moves_the_tag_whatever_a_mirror_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = LayerCache(str(tmp_path / "cache"))
    env = environment(tmp_path / "env", package(tmp_path / "env", "alpha", {f"{SITE}/alpha.py": "value = 1\n"}))
    with RegistrySimulator().serving() as registry, RegistrySimulator().serving() as mirror:
        reference = f"{registry.host}/team/envs:v1"
        mine = push_environment(env, reference, cache=cache)
        for kind in ("blobs", "manifests", "tags"):
            setattr(mirror, kind, copy.deepcopy(getattr(registry, kind)))
        # A colleague moves the tag; the mirror goes on to say what it was.
        push_environment(env, reference, settings=Settings(env=("A=1",)), cache=cache)
        folder = tmp_path / "certs.d" / registry.host
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(f'[host."http://{mirror.host}"]\n')
        monkeypatch.setenv("LAMELLA_HOSTS_DIR", str(tmp_path / "certs.d"))
        again = push_environment(env, reference, cache=cache)
        assert again.reference == mine.reference
        assert registry.tags["team/envs"]["v1"] == mine.reference.partition("@")[2]
        assert not mirror.requests
