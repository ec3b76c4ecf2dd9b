"""Ordinary clients read what Lamella pushed: skopeo and podman against Debian's registry."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import (
    Platform,
)
from support.engines import need
from support.once import once
from support.published import push_image

if TYPE_CHECKING:
    from pathlib import Path

    from support.once import Lamella

pytestmark = pytest.mark.engine


@pytest.fixture(scope="session")
def base(debian: Path, shared: Path) -> str:
    """The minimal Debian as an image of one layer, uncompressed, in a layout folder."""
    folder = shared / "base-image" / "layout"
    with once(folder) as mine:
        if mine:
            archive = folder.parent / "debian.tar"
            subprocess.run(["tar", "-C", debian, "-cf", archive, "."], check=True)
            layout = OciLayout(str(folder), create=True)
            env = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
            push_image(layout, [archive.read_bytes()], "bookworm", Platform.here(), env)
            archive.unlink()
    return f"oci:{folder}:bookworm"


def test_skopeo_inspects_and_copies_a_pushed_environment(
    numeric: Path, registry: str, lamella: Lamella, tmp_path: Path
) -> None:
    skopeo = need("skopeo")
    reference = f"{registry}/team/envs:numeric"
    assert lamella("push", reference, numeric).returncode == 0

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
            f"oci:{tmp_path}/copy:numeric",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert copied.returncode == 0, copied.stderr
    # The copy is as good as the original: a node pulls from it, and runs.
    result = lamella(
        "run", f"oci:{tmp_path}/copy:numeric", "--", "python", "-c", "import numpy; print(numpy.ones(2).sum())"
    )
    assert (result.stdout, result.returncode) == ("2.0\n", 0), result.stderr


@pytest.mark.root
def test_podman_runs_the_environment_on_a_base_image(
    numeric: Path, base: str, registry: str, lamella: Lamella, tmp_path: Path, short_path: Path
) -> None:
    podman = need("podman")
    reference = f"{registry}/team/envs:based"
    pushed = lamella("push", reference, numeric, "--base", base)
    assert pushed.returncode == 0, pushed.stderr

    limits = tmp_path / "containers.conf"
    limits.write_text('[containers]\ndefault_ulimits = ["nofile=4096:4096","nproc=4096:4096"]\n')
    # By default they share /run/libpod, which a `system reset` of another test takes away.
    storage = ["--root", str(tmp_path / "podman"), "--runroot", str(short_path), "--tmpdir", f"{short_path}/libpod"]
    storage += ["--storage-driver", "overlay"]
    try:
        run = subprocess.run(
            [
                podman, *storage, "--runtime", "/usr/sbin/runc", "--cgroup-manager", "cgroupfs", "run", "--rm", "--quiet",
                "--network", "none", "--tls-verify=false", reference,
                "python", "-c", "import sys, numpy, ssl, sqlite3; print(sys.prefix)",
            ],
            check=False, capture_output=True, text=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CONTAINERS_CONF": str(limits)},
        )  # fmt: skip
        # Of a container that ends at once podman 4.3 now and then loses the exit code ("no such exit code"): Python's
        # last line says that all before it went well.
        assert run.stdout == "/opt/env\n", run.stderr
    finally:
        subprocess.run([podman, *storage, "system", "reset", "--force"], check=False, capture_output=True)
