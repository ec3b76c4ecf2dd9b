"""Make the image for nodes: the node's part of Lamella, shipped by Lamella, on Debian's C library.

    python -m node_part.image dist/node-image [--machine x86_64] [--sign KEY]

The result is an OCI layout with the tags VERSION (zstd) and VERSION-gzip. See docs/adr/the-node-image.md.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lamella.builder import Compression, ImageSettings, PushOptions, ScanOptions, push
from lamella.layers import read_private_key
from node_part import base_image, debian
from node_part.base_image import BaseImage
from node_part.part import REQUIRED, install, metadata, modules, project_version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Debian's and Go's names of machines, which are the same for these two."""
IMAGE_PREFIX = "/usr/lib/lamella"
"""Not below /opt, which pods mount a volume over."""
PACKAGES = (*REQUIRED, "zstandard", "zlib-ng", "cryptography", "cffi", "pycparser")
"""cryptography, with what it imports, checks signatures."""
_SUFFIXES: Mapping[Compression, str] = {"zstd": "", "gzip": "-gzip"}
"""Ends of tags. Engines that read no zstd (Docker before 23) take the other."""
_LABELS = {
    "org.opencontainers.image.title": "Lamella for nodes",
    "org.opencontainers.image.description": "Pulls, mounts and runs Python environments",
    "org.opencontainers.image.licenses": "Apache-2.0",
    "org.opencontainers.image.version": project_version(),
}
_RUN = {
    "User": f"{debian.USER}:{debian.USER}",
    "WorkingDir": "/",
    "Env": [
        "PATH=/usr/local/bin:/usr/bin:/bin",
        # `kubectl describe pod` shows the end of this file. Only kubelets create it.
        "LAMELLA_TERMINATION_LOG=/dev/termination-log",
        # Environments run in other containers, whose C library is not this one.
        "LAMELLA_ELSEWHERE=1",
    ],
}


def make(
    layout: Path, machines: tuple[str, ...], compressions: Sequence[Compression] = ("zstd", "gzip"), key: str = ""
) -> None:
    """Make the image in a new layout, for each machine; sign it with the private key in the file `key`."""
    with TemporaryDirectory() as folder:
        work = Path(folder)
        images = []
        for machine in machines:
            root = work / machine
            debian.unpack(MACHINES[machine], root)
            debian.interpreter(root, work / "prefixes" / machine)
            _add_packages(work / "prefixes" / machine, machine)
            link: Mapping[str, bytes | str] = {"usr/local/bin/lamella": f"{IMAGE_PREFIX}/bin/lamella"}
            images.append(BaseImage(MACHINES[machine], {**debian.base_files(root), **link}, _RUN))
        for compression in compressions:
            base = work / f"base-{compression}"
            base_image.write(base, "base", tuple(images), compression)
            for number, machine in enumerate(machines):
                options = _options(f"oci:{base}:base", compression, append=bool(number), key=key)
                push(
                    f"oci:{layout}:{project_version()}{_SUFFIXES[compression]}",
                    str(work / "prefixes" / machine),
                    options,
                    # The base has the libraries.
                    scan_options=ScanOptions(local="", system_libraries=False),
                )


def _options(base: str, compression: Compression, *, append: bool, key: str) -> PushOptions:
    return PushOptions(
        image_prefix=IMAGE_PREFIX,
        image=ImageSettings(
            entrypoint=(f"{IMAGE_PREFIX}/bin/lamella",), labels=_LABELS, annotations=dict(_LABELS), cmd=("--help",)
        ),
        base=base,
        compression=compression,
        append=append,
        sbom=True,
        signing_key=read_private_key(key, os.environ.get("COSIGN_PASSWORD", "")) if key else None,
    )


def _add_packages(prefix: Path, machine: str) -> None:
    """Install the node's part and its packages, as an installer would: with records of every file."""
    site = prefix / "lib" / f"python{debian.PYTHON}" / "site-packages"
    install(PACKAGES, str(site), python=debian.PYTHON, machine=machine, glibc=debian.GLIBC)
    shutil.rmtree(site / "bin", ignore_errors=True)
    script = (
        f"#!{prefix}/bin/python{debian.PYTHON}\n"
        'import sys\n\nfrom lamella.cli.main import main\n\nif __name__ == "__main__":\n    sys.exit(main())\n'
    )
    files = modules() | metadata(PACKAGES) | {"../../../bin/lamella": script.encode()}
    (about,) = {path.partition("/")[0] for path in files if ".dist-info/" in path}
    files[f"{about}/INSTALLER"] = b"lamella\n"
    files[f"{about}/entry_points.txt"] = b"[console_scripts]\nlamella = lamella.cli.main:main\n"
    rows = [f"{path},sha256={_hash(content)},{len(content)}\n" for path, content in files.items()]
    files[f"{about}/RECORD"] = "".join([*rows, f"{about}/RECORD,,\n"]).encode()
    for path, content in files.items():
        target = site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    (prefix / "bin/lamella").chmod(0o755)


def _hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def main() -> None:
    """Make the layout that the command line names, in the place of one that is there."""
    parser = argparse.ArgumentParser(prog="node_part.image")
    parser.add_argument("layout", type=Path)
    parser.add_argument("--machine", action="append", choices=sorted(MACHINES), help="default: all")
    parser.add_argument("--compression", action="append", choices=list(_SUFFIXES), help="default: both")
    parser.add_argument("--sign", metavar="KEY", default="")
    arguments = parser.parse_args()
    layout: Path = arguments.layout.absolute()
    new = layout.with_name(f"{layout.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    make(new, tuple(arguments.machine or MACHINES), arguments.compression or tuple(_SUFFIXES), arguments.sign)
    shutil.rmtree(layout, ignore_errors=True)
    new.rename(layout)
    print(f"oci:{arguments.layout}:{project_version()}")


if __name__ == "__main__":
    main()
