"""Hosts without Python: network namespaces on one bridge, each with a root of its own that holds libc and Lamella alone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lamella.builder import LayerCache, push
from lamella.layers import export
from support.engines import need, need_root
from support.installed import base_python, venv

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CLONE_NEWNET = 0x40000000
_LIBC = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libresolv.so.2")


@dataclass(frozen=True)
class Host:
    """A host."""

    namespace: str
    """Its network namespace."""
    root: Path


@contextlib.contextmanager
def hosts(folder: Path, names: Sequence[str], port: int, lamella: Path, cache: Path) -> Iterator[dict[str, Host]]:
    """Make hosts, whose loopback has this machine's `port` as well. `lamella` is its single file; layers
    are built in `cache`."""
    need_root()
    ip = need("ip")
    bridge = f"lam{os.getpid()}"
    network = f"10.{64 + os.getpid() % 64}.{os.getpid() // 64 % 256}"
    program = _interpreter(folder / "tools", cache)
    made: dict[str, Host] = {}
    with contextlib.ExitStack() as stack:

        def run(*words: str) -> None:
            subprocess.run([ip, *words], check=True, stdin=subprocess.DEVNULL)

        run("link", "add", bridge, "type", "bridge")
        stack.callback(run, "link", "delete", bridge)
        run("address", "add", f"{network}.1/24", "dev", bridge)
        run("link", "set", bridge, "up")
        for number, name in enumerate(names, 2):
            space = f"{bridge}-{name}"
            run("netns", "add", space)
            stack.callback(run, "netns", "delete", space)
            stack.callback(_kill, ip, space)
            run("link", "add", f"{bridge}v{number}", "type", "veth", "peer", "name", "eth0", "netns", space)
            run("link", "set", f"{bridge}v{number}", "master", bridge, "up")
            run("-n", space, "address", "add", f"{network}.{number}/24", "dev", "eth0")
            run("-n", space, "link", "set", "lo", "up")
            run("-n", space, "link", "set", "eth0", "up")
            # distributed asks for the address of this route.
            run("-n", space, "route", "add", "default", "via", f"{network}.1")
            stack.enter_context(_forwarded(f"/run/netns/{space}", port))
            made[name] = Host(space, _root(folder / name, program, lamella))
        _enter_script(folder / "enter")
        yield made


def _kill(ip: str, space: str) -> None:
    """Kill the processes of a network namespace: deleting its name leaves them."""
    listed = subprocess.run([ip, "netns", "pids", space], check=True, capture_output=True, text=True).stdout
    for number in listed.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(number), signal.SIGKILL)


def ssh(folder: Path) -> Path:
    """A folder with a program `ssh` that runs its command on a host of `hosts(folder, ...)`."""
    program = folder / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        f"""#!{sys.executable}
import os, shlex, sys
*_, host, command = sys.argv
os.execv("{folder}/enter", ["enter", host, "{folder}", *shlex.split(command)])
"""
    )
    program.chmod(0o755)
    return program.parent


def _enter_script(path: Path) -> None:
    # The process that is started is the host's own, with no other between: who kills it kills that.
    path.write_text(
        f"""#!/bin/sh -e
host=$1 folder=$2; shift 2
exec ip netns exec lam{os.getpid()}-$host unshare --mount sh -ec '
root=$1; shift
mount --bind "$root" "$root"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind "$root/../tools" "$root/tools"
exec /usr/bin/env -i PATH=/usr/bin HOME=/home LAMELLA_STORE=/store /usr/sbin/chroot "$root" "$@"
' sh "$folder/$host" "$@"
"""
    )
    path.chmod(0o755)


def _root(root: Path, program: Path, lamella: Path) -> Path:
    """A root of libc, Lamella's single file, and empty folders."""
    for folder in ("proc", "dev", "tools", "tmp", "home", "store", "opt", "etc", "lib64"):
        (root / folder).mkdir(parents=True)
    listed = subprocess.run(["ldd", program / "bin/python"], check=True, capture_output=True, text=True).stdout
    (loader,) = [line.split()[0] for line in listed.splitlines() if "ld-linux" in line]
    (libc,) = [Path(line.split()[2]).parent for line in listed.splitlines() if "libc.so.6 =>" in line]
    for source in (Path(loader), *(libc / name for name in _LIBC)):
        target = root / source.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.resolve(), target)
        target.chmod(0o755)
    (root / "usr/bin").mkdir(parents=True, exist_ok=True)
    command = root / "usr/bin/lamella"
    # Nothing named python is on the hosts' PATH. The archive's offsets count the first line, whose length stays.
    first, _, rest = lamella.read_bytes().partition(b"\n")
    command.write_bytes(b"#!/tools/bin/python".ljust(len(first)) + b"\n" + rest)
    command.chmod(0o755)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (root / "etc/passwd").write_text("root:x:0:0:root:/home:/nonexistent\n")
    return root


def _interpreter(folder: Path, cache: Path) -> Path:
    """An interpreter for Lamella alone, as Lamella itself exports it; the hosts see it as /tools."""
    environment = venv(folder.parent / "tools-environment", by="uv", python=base_python())
    layout = f"oci:{folder.parent}/tools-layout:v1"
    push(layout, str(environment), cache=LayerCache(str(cache)))
    export(layout, str(folder))
    return folder


@contextlib.contextmanager
def _forwarded(namespace: str, port: int) -> Iterator[None]:
    """Let programs in a network namespace reach this machine's loopback `port` by their own."""
    with _listening(namespace, port) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):  # shut down
                while True:
                    near, _ = listener.accept()
                    threading.Thread(target=_serve, args=(near, port), daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _listening(namespace: str, port: int) -> socket.socket:
    """A socket of `namespace`: it belongs to where it was made, whichever thread uses it."""
    made: list[socket.socket] = []

    def make() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with open(namespace, "rb") as space:
            if libc.setns(space.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        made.append(socket.create_server(("127.0.0.1", port)))

    # A thread of its own, which alone enters the namespace and ends.
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def _serve(near: socket.socket, port: int) -> None:
    with near, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as far:
        back = threading.Thread(target=_pump, args=(far, near), daemon=True)
        back.start()
        _pump(near, far)
        back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
