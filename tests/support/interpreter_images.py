"""Images with an interpreter for another machine, as far as it is looked at; nothing of them runs."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import MANIFEST, Descriptor, Platform
from support.conda import SHORT, VERSION, for_machine
from support.engines import missing
from support.installed import base_python
from support.published import push_image, push_index

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ARM = Platform("linux", "arm64")
NAME = f"python{SHORT}"
TRIPLET = "aarch64-linux-gnu"


def library(soname: str = "libz.so.1") -> bytes:
    """A library of this system as one of arm64, as far as it is looked at."""
    for folder in ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib64"):
        path = os.path.join(folder, soname)
        if os.path.exists(path):
            with open(path, "rb") as file:
                return for_machine(file.read(), "linux-aarch64")
    return missing(f"{soname} is not here: apt-get install zlib1g")


def interpreter() -> bytes:
    with open(base_python(), "rb") as file:
        return for_machine(file.read(), "linux-aarch64")


def official(prefix: str = "usr/local") -> dict[str, bytes | str]:
    """The files of an image with a Python in `prefix`, as little of it as is looked at."""
    return {
        f"{prefix}/bin/{NAME}*": interpreter(),
        f"{prefix}/bin/python": f"->{NAME}",
        f"{prefix}/lib/{NAME}/os.py": b"",
        f"{prefix}/lib/{NAME}/site.py": b"",
        f"{prefix}/lib/{NAME}/json/__init__.py": b"value = 1\n",
        f"{prefix}/lib/{NAME}/lib-dynload/zlib.cpython-{TRIPLET}.so": library("libstdc++.so.6"),
        f"{prefix}/lib/{NAME}/site-packages/pip/__init__.py": b"",
        f"{prefix}/lib/{NAME}/test/big.py": b"",
        f"{prefix}/include/{NAME}/patchlevel.h": f'#define PY_VERSION "{VERSION}"\n'.encode(),
        f"usr/lib/{TRIPLET}/libgcc_s.so.1.0": library("libgcc_s.so.1"),
        f"usr/lib/{TRIPLET}/libgcc_s.so.1": "->libgcc_s.so.1.0",
        f"usr/lib/{TRIPLET}/libc.so.6": library("libgcc_s.so.1"),
        f"usr/lib/{TRIPLET}/libunneeded.so.1": library(),
        "lib": "->usr/lib",
        "etc/shadow": b"root::",
    }


def tar(files: Mapping[str, bytes | str]) -> bytes:
    """A layer as base images have them: in GNU's format, with setuid programs and devices."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path.rstrip("*"))
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content.removeprefix("->")
                archive.addfile(entry)
            else:
                entry.size, entry.mode = len(content), 0o4755 if path.endswith("*") else 0o644
                archive.addfile(entry, io.BytesIO(content))
        device = tarfile.TarInfo("dev/null")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    return made.getvalue()


def image(folder: Path, *layers: Mapping[str, bytes | str], platform: Platform = ARM, env: str = "") -> str:
    """A reference to an image index for `platform` alone."""
    storage = OciLayout(str(folder), create=True)
    pushed = push_image(storage, [tar(each) for each in layers], platform=platform, env=[env] if env else [])
    described = pushed.descriptor
    push_index(storage, [Descriptor(MANIFEST, described.digest, described.size, platform=platform)], "3")
    return f"oci:{folder}:3"
