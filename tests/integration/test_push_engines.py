"""Engines run, mount and unpack a pushed environment: podman, containerd, umoci."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import Platform
from support.docker_engine import containerd
from support.engines import need, need_root
from support.installed import base_python, install, venv, wheel
from support.published import push_image

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.engine

HELLO = "import greet, sys; greet.main(); print(sys.prefix)"
EXPECTED = "hello\n/opt/env\n"


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory, registry: str, shared: Path) -> dict[str, str]:
    """A small environment on a base that is nothing but this machine's libc, by compression."""
    folder = tmp_path_factory.mktemp("engines")
    prefix = venv(folder / "env", python=base_python())
    install(prefix, wheel(folder, "greet", files={"greet.py": "def main(): print('hello')"}))
    base = libc(folder / "base")
    cache = LayerCache(str(shared / "cache"))
    references = {}
    for compression in ("zstd", "gzip"):
        reference = f"{registry}/team/envs:{compression}"
        push(reference, str(prefix), PushOptions(base=base, compression=compression), cache=cache)
        references[compression] = reference
    return references


def libc(layout: Path) -> str:
    """A base image of the C library that the tests' own Python runs on, and of folders that engines mount to."""
    shown = subprocess.run(["ldd", os.path.realpath(base_python())], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"(/\S*/(?:ld-linux[^\s/]*|libc\.so\.6))", shown)
    beside = os.path.dirname(next(path for path in found if path.endswith("libc.so.6")))
    names = ("libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libresolv.so.2")
    found += [f"{beside}/{name}" for name in names if os.path.exists(f"{beside}/{name}")]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", dereference=True) as tar:
        for folder in ("dev", "proc", "sys", "tmp", "etc", "run"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for path in sorted(set(found)):
            tar.add(path)
    push_image(OciLayout(str(layout), create=True), [made.getvalue()], "libc", Platform.here())
    return f"oci:{layout}:libc"


def run(command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"} | more
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


@pytest.mark.root
@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_podman_runs_the_image_and_mounts_it_as_a_volume(
    compression: str, pushed: dict[str, str], tmp_path: Path, short_path: Path
) -> None:
    need_root()
    limits = tmp_path / "containers.conf"
    limits.write_text('[containers]\ndefault_ulimits = ["nofile=4096:4096","nproc=4096:4096"]\n')
    podman = [
        need("podman"),
        "--root",
        f"{tmp_path}/root",
        "--runroot",
        str(short_path),
        # By default they share /run/libpod, which a `system reset` of another test takes away.
        "--tmpdir",
        f"{short_path}/libpod",
        "--storage-driver",
        "overlay",
    ]
    podman += ["--runtime", need("runc"), "--cgroup-manager", "cgroupfs"]
    flags = ["--rm", "--network", "none", "--quiet", "--tls-verify=false"]
    try:
        done = run([*podman, "run", *flags, pushed[compression], "python", "-c", HELLO], CONTAINERS_CONF=str(limits))
        # Of a container that ends at once podman 4.3 now and then loses the exit code ("no such exit code").
        assert done.stdout == EXPECTED, done.stderr
        mount = f"type=image,source={pushed[compression]},destination=/mnt"
        inside = "import os; print({'bin', 'include', 'lib'} <= set(os.listdir('/mnt/opt/env')))"
        done = run(
            [*podman, "run", *flags, "--mount", mount, pushed[compression], "python", "-c", inside],
            CONTAINERS_CONF=str(limits),
        )
        assert done.stdout == "True\n", done.stderr
    finally:
        run([*podman, "system", "reset", "--force"])


@pytest.mark.root
@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_containerd_pulls_and_runs_the_image(compression: str, pushed: dict[str, str], tmp_path: Path) -> None:
    with containerd(tmp_path / "containerd") as socket:
        ctr = [need("ctr"), "--address", socket]
        pulled = run([*ctr, "image", "pull", "--plain-http", pushed[compression]])
        assert pulled.returncode == 0, pulled.stderr
        for name in ("one", "two", "three"):
            done = run([*ctr, "run", "--rm", pushed[compression], name, "/opt/env/bin/python", "-c", HELLO])
            if done.stdout or done.returncode:
                break  # on a busy machine, ctr now and then loses what a short container wrote
        assert (done.stdout, done.returncode) == (EXPECTED, 0), done.stderr


@pytest.mark.root
def test_umoci_unpacks_the_image(pushed: dict[str, str], tmp_path: Path) -> None:
    need_root()
    layout = f"{tmp_path}/layout:x"
    copied = run(
        [need("skopeo"), "copy", "-q", "--src-tls-verify=false", f"docker://{pushed['gzip']}", f"oci:{layout}"]
    )
    assert copied.returncode == 0, copied.stderr
    done = run([need("umoci"), "unpack", "--image", layout, f"{tmp_path}/bundle"])
    assert done.returncode == 0, done.stderr
    root = tmp_path / "bundle" / "rootfs"
    # The loader finds an executable's $ORIGIN through /proc.
    script = 'mount -t proc proc "$0/proc" && exec chroot "$0" /opt/env/bin/python -c "$1"'
    inside = run([need("unshare"), "--mount", "sh", "-c", script, str(root), HELLO])
    assert inside.stdout == EXPECTED, inside.stderr


def test_skopeo_copies_there_and_back_without_a_change(pushed: dict[str, str], registry: str, tmp_path: Path) -> None:
    skopeo = [
        need("skopeo"),
        "copy",
        "-q",
        "--all",
        "--preserve-digests",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
    ]
    assert run([*skopeo, f"docker://{pushed['zstd']}", f"oci:{tmp_path}/copy:x"]).returncode == 0
    back = f"{registry}/team/back:x"
    assert run([*skopeo, f"oci:{tmp_path}/copy:x", f"docker://{back}"]).returncode == 0
    raw = [need("skopeo"), "inspect", "--raw", "--tls-verify=false"]
    assert run([*raw, f"docker://{back}"]).stdout == run([*raw, f"docker://{pushed['zstd']}"]).stdout != ""
