"""Debian's dockerd with a containerd of its own, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import threading
from subprocess import PIPE
from typing import TYPE_CHECKING

from support.engines import need, need_root
from support.processes import started
from support.short_folders import short_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def containerd(folder: Path) -> Iterator[str]:
    """Runs containerd with its files in `folder`, and gives the address of its socket."""
    need_root()
    with short_folder() as short, contextlib.ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "containerd.toml"
        config.write_text(
            f'version = 2\nroot = "{folder}/containerd"\nstate = "{short}/state"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{short}/containerd.sock"\n'
        )
        _run(stack, [need("containerd"), "--config", str(config)], "containerd successfully booted")
        yield f"{short}/containerd.sock"


@contextlib.contextmanager
def docker_engine(folder: Path) -> Iterator[str]:
    """Runs an engine whose files are in `folder`, and gives its DOCKER_HOST. It has no network of its own."""
    with (
        containerd(folder) as address,
        short_folder() as short,
        contextlib.ExitStack() as stack,
    ):
        engine = [need("dockerd"), "--containerd", address, "--host", f"unix://{short}/docker.sock"]
        engine += ["--data-root", f"{folder}/docker", "--exec-root", f"{short}/exec", "--pidfile", f"{short}/pid"]
        engine += ["--bridge", "none", "--iptables=false", "--ip6tables=false"]
        _run(stack, engine, "API listen on")
        yield f"unix://{short}/docker.sock"


def _run(stack: contextlib.ExitStack, command: list[str], ready: str) -> None:
    """Starts `command`, waits until it says that it is `ready`, and ends it when `stack` is left."""
    process = stack.enter_context(started(command, stderr=PIPE))
    assert process.stderr
    said = []
    for line in process.stderr:
        said.append(line)
        if ready in line:
            break
    else:
        raise AssertionError(f"{command[0]} did not start: {''.join(said[-5:])}")
    rest = threading.Thread(target=process.stderr.read)
    rest.start()
    stack.callback(rest.join)
    stack.callback(process.wait, timeout=60)
    stack.callback(process.terminate)
