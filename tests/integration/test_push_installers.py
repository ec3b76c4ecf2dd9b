"""One lock, several installers, several places: the same layers."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.push import push
from lamella.layers.oci.reference import Reference
from lamella.layers.published import environment as published
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage
from support.installed import base_python, uv

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.builder.pushing.push import Pushed

# Console scripts, compiled modules, C headers, data files in share/, a namespace, gui scripts, a vendored tree.
REQUIREMENTS = ["pip", "setuptools", "rich", "httpx", "greenlet", "jupyter-core", "markupsafe", "charset-normalizer"]


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same distributions, by pip under one prefix and by uv under another."""
    by_pip = tmp_path_factory.mktemp("pip") / "env"
    by_uv = tmp_path_factory.mktemp("uv") / "a" / "longer path" / "environment"
    # The same files: indexes may each have another build of one version.
    wheels = by_pip.parent / "wheels"
    subprocess.run([base_python(), "-m", "venv", by_pip], check=True)
    pip = [str(by_pip / "bin" / "python"), "-m", "pip", "-q"]
    subprocess.run([*pip, "download", "--only-binary=:all:", "--dest", str(wheels), *REQUIREMENTS], check=True)
    local = ["--no-index", "--find-links", str(wheels)]
    subprocess.run(
        [*pip, "install", "--no-compile", "--upgrade", *local, *REQUIREMENTS],
        check=True,
        env={name: value for name, value in os.environ.items() if name != "PIP_FIND_LINKS"},
    )
    lock = by_pip.parent / "lock.txt"
    lock.write_text(subprocess.run([*pip, "freeze", "--all"], check=True, capture_output=True, text=True).stdout)
    subprocess.run([uv(), "venv", "-q", "--python", base_python(), by_uv], check=True)
    command = [uv(), "pip", "install", "-q", "--python", by_uv / "bin/python", "--no-build", *local, "-r", lock]
    subprocess.run([*map(str, command)], check=True)
    return by_pip, by_uv


def layers(pushed: Pushed) -> dict[str, tuple[str, str]]:
    """Package name to layer key and digest."""
    place = Reference.parse(pushed.reference)
    storage = open_storage(place, Trust())
    (environment,) = published.read_index(storage, place, Trust()).environments
    storage.close()
    notes = [(layer.descriptor.annotations, layer.descriptor.digest) for layer in environment.layers]
    return {note["dev.lamella.package"]: (note["dev.lamella.key"], str(digest)) for note, digest in notes}


def test_one_lock_by_pip_and_by_uv_under_other_prefixes_is_the_same_layers(
    environments: tuple[Path, Path], tmp_path: Path, shared: Path
) -> None:
    by_pip, by_uv = environments
    # Layers of earlier tests, and layers that are built now.
    cache = LayerCache(str(shared / "cache"))
    pushed = [
        push(f"oci:{tmp_path}/pip:x", str(by_pip), cache=cache),
        push(f"oci:{tmp_path}/uv:x", str(by_uv), cache=LayerCache(str(tmp_path / "another"))),
    ]
    assert len(layers(pushed[0])) > len(REQUIREMENTS)
    assert layers(pushed[0]) == layers(pushed[1])
    assert pushed[0].reference.partition("@")[2] == pushed[1].reference.partition("@")[2]

    again = push(f"oci:{tmp_path}/pip:x", str(by_uv), cache=cache)
    assert again.reference == pushed[0].reference
    assert (again.built, again.uploaded, again.moved) == (0, 0, 0)
