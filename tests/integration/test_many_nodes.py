"""A pull-through cache before the registry, as docs/how-to/many-nodes.md has it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.distribution import distribution
from support.installed import install, venv, wheel

if TYPE_CHECKING:
    from support.once import Lamella

pytestmark = [pytest.mark.slow, pytest.mark.engine]

GUIDE = Path(__file__).parent.parent.parent / "docs/how-to/many-nodes.md"


def test_a_pull_through_cache_serves_the_second_node_without_the_registry(tmp_path: Path, lamella: Lamella) -> None:
    prefix = install(venv(tmp_path / "env"), wheel(tmp_path, "alpha", "1.0", {"alpha.py": "X = 1\n"}))
    hosts = re.findall(r"^```toml\n(server = .*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)[0]
    hosts_dir, data = tmp_path / "certs.d", tmp_path / "data"
    with distribution(folder=str(data)) as registry, distribution(cache_of=registry) as cache:
        done = lamella("push", "--json", f"{registry}/team/envs:v1", prefix)
        assert done.returncode == 0, done.stderr
        (pinned,) = re.findall(rf'"reference": "({registry}/team/envs:v1@sha256:\w+)"', done.stdout)
        (hosts_dir / registry).mkdir(parents=True)
        (hosts_dir / registry / "hosts.toml").write_text(
            hosts.replace("https://registry.example.com", f"http://{registry}").replace(
                "https://cache.example.com", f"http://{cache}"
            )
        )
        settings = {"LAMELLA_HOSTS_DIR": str(hosts_dir)}
        first = lamella("pull", "--verbose", "--store", tmp_path / "node1", pinned, **settings)
        assert first.returncode == 0, first.stderr
        # Manifests and layers alike: the registry is only asked by the cache.
        requests = [line for line in first.stderr.splitlines() if "GET" in line]
        assert [line for line in requests if cache in line]
        assert not [line for line in requests if registry in line]
        for blobs in data.glob("docker/registry/v2/blobs/sha256"):
            blobs.rename(blobs.with_name("gone"))

        second = lamella(
            "run",
            "--store",
            tmp_path / "node2",
            pinned,
            "--",
            "python",
            "-c",
            "import alpha; print(alpha.X)",
            **settings,
        )
        assert (second.returncode, second.stdout) == (0, "1\n"), second.stderr
