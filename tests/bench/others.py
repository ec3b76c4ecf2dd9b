"""What people do without Lamella, measured on the same environment: tar, cp, uv, Docker images."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Failed, Took, run
from support.docker_engine import docker_engine

if TYPE_CHECKING:
    from collections.abc import Iterator


def files_of(prefix: Path, listing: Path) -> Path:
    """Write a list of all that a push of the environment ships: the prefix, and the files of its base interpreter."""
    from lamella.builder import scan

    outside = set()
    for package in scan(str(prefix)).packages:
        for file in package.files:
            if not file.source.startswith(f"{prefix}/"):
                path = Path(file.source)
                outside |= {path, *path.parent.glob(f"__pycache__/{path.stem}.*.pyc")}
    listing.write_text("".join(f"{path}\0" for path in sorted({prefix, *outside})))
    return listing


def tar_create(listing: Path, archive: Path) -> Took:
    """GNU tar piped into `zstd -3 -T2`."""
    pipe = 'tar --create --absolute-names --null --files-from="$0" | zstd --quiet --force -3 -T2 -o "$1"'
    return run(["sh", "-c", pipe, listing, archive])


def read(listing: Path) -> Took:
    """Every file once, by `cat`."""
    return run(["sh", "-c", 'find -files0-from "$0" -type f -print0 | xargs -0 cat >/dev/null', listing])


def without_byte_code(prefix: Path, copy: Path) -> Path:
    """A copy of an environment as uv leaves it by default."""
    run(["cp", "-a", prefix, copy])
    for folder in list(copy.rglob("__pycache__")):
        shutil.rmtree(folder)
    return copy


def compile_all(prefix: Path, listing: Path, folder: Path) -> Took:
    """`compileall -j2` of copies of the same files, by the environment's interpreter. Sources may fail to compile."""
    copies = folder / "compiled"
    copies.mkdir()
    copy = 'tar --create --absolute-names --null --files-from="$0" | tar --extract --directory="$1"'
    run(["sh", "-c", copy, listing, copies])
    command = '"$0" -m compileall -f -q -j2 "$1" >/dev/null 2>&1 || true'
    return run(["sh", "-c", command, prefix / "bin/python", copies])


def conda_pack(prefix: Path, target: Path) -> Took:
    """`conda-pack` of a conda environment into `target`, whose suffix chooses the form."""
    uv = Path(sys.executable).with_name("uv")
    command: list[str | Path] = [
        "conda-pack",
        "--quiet",
        "--ignore-missing-files",
        "--n-threads",
        "-1",
        "--prefix",
        prefix,
    ]
    return run([uv, "tool", "run", "--quiet", *command, "--output", target])


def tar_extract(folder: Path) -> Took:
    """The archive `env.tar.zst` into a new folder."""
    (folder / "extracted").mkdir()
    return run(["tar", "--extract", "--zstd", f"--file={folder}/env.tar.zst", f"--directory={folder}/extracted"])


def copy(prefix: Path, folder: Path) -> Took:
    """`cp -a` into a new folder."""
    return run(["cp", "-a", prefix, folder / "copied"])


def uv_install(prefix: Path, folder: Path) -> Took:
    """`uv pip install` of the same versions into a new virtual environment, from a cache that has them all."""
    uv = Path(sys.executable).with_name("uv")
    lock = folder / "lock.txt"
    text = subprocess.run(
        [uv, "pip", "freeze", "--quiet", "--python", prefix / "bin/python"], check=True, capture_output=True, text=True
    ).stdout
    lock.write_text("".join(f"{line}\n" for line in text.splitlines() if "==" in line))
    install: list[str | Path] = [uv, "pip", "install", "--quiet", "--no-deps", "--requirements", lock, "--python"]
    for name in ("warming", "measured"):
        run([prefix / "bin/python", "-m", "venv", "--without-pip", folder / name])
        took = run([*install, folder / name / "bin/python"])
    return took


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[str]:
    """The host of a Docker engine: the one that answers here, or one that is started for this; `Failed` without any."""
    if shutil.which("docker") is None:
        raise Failed("no docker here")
    try:
        run(["docker", "info"])
    except Failed:
        if os.geteuid() != 0 or not shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin"):
            raise
        with docker_engine(folder / "engine") as host:
            yield host
    else:
        yield os.environ.get("DOCKER_HOST", "")


class Docker:
    """The Docker image workflow: the environment copied into an image, pushed, pulled."""

    def __init__(self, host: str, prefix: Path, folder: Path, registry: str) -> None:
        self._settings = {"DOCKER_BUILDKIT": "0"} | ({"DOCKER_HOST": host} if host else {})
        self._context = folder / "context"
        self._context.mkdir()
        run(["cp", "-a", prefix, self._context / "env"])
        (self._context / "Dockerfile").write_text("FROM scratch\nCOPY env /opt/env\n")
        self._name = f"{registry}/bench/docker"

    def build(self, tag: str) -> Took:
        """`docker build` with a COPY of the environment."""
        return self._docker("build", "--tag", f"{self._name}:{tag}", str(self._context))

    def push(self, tag: str) -> Took:
        """`docker push`."""
        return self._docker("push", f"{self._name}:{tag}")

    def pull(self, tag: str) -> Took:
        """`docker pull` with no part of the image there."""
        self._docker("rmi", "--force", f"{self._name}:{tag}")
        return self._docker("pull", f"{self._name}:{tag}")

    def change(self, path: str, content: bytes) -> None:
        """One file of the environment becomes `content`."""
        (self._context / "env" / path).write_bytes(content)

    def _docker(self, *arguments: str) -> Took:
        return run(["docker", *arguments], settings=self._settings)
