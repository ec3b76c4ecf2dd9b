"""Ordinary clients read what Lamella pushed: skopeo and podman against Debian's registry."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.distribution import distribution
from support.engines import need, need_root
from support.once import once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.once import Lamella


@pytest.fixture
def registry() -> Iterator[str]:
    """A registry of this test's own, as host:port."""
    with distribution() as address:
        yield address


@pytest.fixture(scope="session")
def base(debian: Path, shared: Path) -> str:
    """The minimal Debian as an image in a layout folder, made by podman and skopeo."""
    need_root()
    layout = shared / "base-image" / "layout"
    with once(layout) as mine:
        if mine:
            archive = layout.parent / "debian.tar"
            subprocess.run(["tar", "-C", debian, "-cf", archive, "."], check=True)
            name = "localhost/lamella-test-debian:bookworm"
            subprocess.run([need("podman"), "import", "-q", archive, name], check=True, capture_output=True)
            subprocess.run(
                [need("skopeo"), "copy", "-q", f"containers-storage:{name}", f"oci:{layout}:bookworm"], check=True
            )
            subprocess.run([need("podman"), "rmi", name], check=True, capture_output=True)
            archive.unlink()
    return f"oci:{layout}:bookworm"


def test_skopeo_inspects_and_copies_what_was_pushed(
    science: Path, registry: str, lamella: Lamella, tmp_path: Path
) -> None:
    skopeo = need("skopeo")
    reference = f"{registry}/team/envs:science"
    assert lamella("push", reference, science).returncode == 0

    shown = subprocess.run(
        [skopeo, "inspect", "--tls-verify=false", f"docker://{reference}"], check=True, capture_output=True, text=True
    )
    document = json.loads(shown.stdout)
    assert document["Os"] == "linux"
    assert 1 < len(document["Layers"]) <= 100
    copied = subprocess.run(
        [
            skopeo,
            "copy",
            "-q",
            "--all",
            "--src-tls-verify=false",
            f"docker://{reference}",
            f"oci:{tmp_path}/copy:science",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert copied.returncode == 0, copied.stderr
    # The copy is as good as the original: a node pulls from it, and runs.
    result = lamella(
        "run", f"oci:{tmp_path}/copy:science", "--", "python", "-c", "import numpy; print(numpy.ones(2).sum())"
    )
    assert (result.stdout, result.returncode) == ("2.0\n", 0), result.stderr


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_podman_runs_the_environment_on_a_base_image(
    compression: str, science: Path, base: str, registry: str, lamella: Lamella, tmp_path: Path
) -> None:
    podman = need("podman")
    reference = f"{registry}/team/envs:{compression}"
    pushed = lamella("push", reference, science, "--base", base, "--compression", compression)
    assert pushed.returncode == 0, pushed.stderr

    limits = tmp_path / "containers.conf"
    limits.write_text('[containers]\ndefault_ulimits = ["nofile=4096:4096","nproc=4096:4096"]\n')
    storage = [
        "--root",
        str(tmp_path / "podman"),
        "--runroot",
        str(tmp_path / "podman-run"),
        "--storage-driver",
        "overlay",
    ]
    try:
        run = subprocess.run(
            [
                podman, *storage, "--runtime", "/usr/sbin/runc", "--cgroup-manager", "cgroupfs", "run", "--rm", "--quiet",
                "--network", "none", "--tls-verify=false", reference,
                "python", "-c", "import sys, sklearn, ssl, sqlite3; print(sys.prefix)",
            ],
            check=False, capture_output=True, text=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CONTAINERS_CONF": str(limits)},
        )  # fmt: skip
        assert (run.stdout, run.returncode) == ("/opt/env\n", 0), run.stderr
    finally:
        subprocess.run([podman, *storage, "system", "reset", "--force"], check=False, capture_output=True)
