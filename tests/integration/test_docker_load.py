"""A pushed environment in Docker's own engine."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import BuilderError
from lamella.builder.image import documents
from lamella.builder.image.docker_load import load_image
from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from support.distribution import distribution
from support.docker_engine import docker_engine
from support.engines import need
from support.installed import install, venv, wheel
from support.packages import environment, package

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def reference(tmp_path: Path, shared: Path) -> str:
    """An environment of one package, on no base: it has an interpreter and what that needs, but no libc."""
    prefix = venv(tmp_path / "env")
    install(prefix, wheel(tmp_path, "greet", files={"greet.py": "def main(): print('hello')"}))
    return push(f"oci:{tmp_path}/Envs:greet", str(prefix), cache=LayerCache(str(shared / "cache"))).reference


@pytest.mark.engine
@pytest.mark.root
def test_docker_runs_a_loaded_image(reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = need("docker")
    with docker_engine(tmp_path / "engine") as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        assert load_image(reference) == "envs:greet"
        assert load_image(reference, name="team/other:1") == "team/other:1"
        shown = subprocess.run([docker, "image", "ls", "-q"], check=True, capture_output=True, text=True).stdout.split()
        assert len(shown) == 2
        assert len(set(shown)) == 1
        assert greeted(docker, "envs:greet") == "hello\n/opt/env\n"


def greeted(docker: str, name: str) -> str:
    """What the environment says in the image `name`. The libc is the machine's: an image without a base has none."""
    mounts = [f"--volume={path}:{path}:ro" for path in ("/lib", "/lib64", "/usr/lib") if os.path.exists(path)]
    command = [docker, "run", "--rm", "--network", "none", *mounts, name]
    program = "import greet, sys; greet.main(); print(sys.prefix)"
    done = subprocess.run([*command, "/opt/env/bin/python", "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.engine
@pytest.mark.root
def test_docker_pulls_and_runs_an_environment_with_several_package_manifests(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = need("docker")
    # As of more than 500 packages: all of them are nothing to an engine.
    monkeypatch.setattr(documents, "MANIFEST_LAYERS", 1)
    prefix = venv(tmp_path / "env")
    install(prefix, wheel(tmp_path, "greet", files={"greet.py": "def main(): print('hello')"}))
    with distribution() as host, docker_engine(tmp_path / "engine") as engine:
        reference = f"{host}/team/envs:greet"
        # This engine is of before zstd.
        pushed = push(reference, str(prefix), PushOptions(compression="gzip"), cache=LayerCache(str(shared / "cache")))
        monkeypatch.setenv("DOCKER_HOST", engine)
        for name in (reference, pushed.reference):
            subprocess.run([docker, "pull", "--quiet", name], check=True, capture_output=True)
            assert greeted(docker, name) == "hello\n/opt/env\n"


def test_missing_engine_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = package(tmp_path / "env", "thing", {"lib/x": "x"})
    cache = LayerCache(str(tmp_path / "cache"))
    reference = push(f"oci:{tmp_path}/out:x", environment(tmp_path / "env", one), cache=cache).reference
    # Port 1 is reserved, so no server listens there.
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(BuilderError, match=r"no Docker engine answers: .*; start it, or set DOCKER_HOST"):
        load_image(reference)
