"""Debian's packages for another architecture, unpacked and not configured: the C library, Python and certificates.

Nothing of them runs, so that one machine makes images for others.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

RELEASE = "bookworm"
PYTHON = "3.11"
"""The release's Python."""
GLIBC = "2_36"
"""The release's C library."""
_PACKAGES = ("libc6", "ca-certificates", f"python{PYTHON}-minimal", f"libpython{PYTHON}-stdlib")
USER = 65532
"""The user of the image, as in other images without root."""
_ETC = {
    "etc/passwd": f"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{USER}:{USER}:nonroot:/nonexistent:/sbin/nologin\n",
    "etc/group": f"root:x:0:\nnonroot:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"


def unpack(architecture: str, root: Path) -> None:
    """Download the packages with their dependencies and unpack them into a new folder `root`."""
    if not shutil.which("mmdebstrap"):
        raise SystemExit("mmdebstrap: not installed; apt-get install mmdebstrap")
    command = ["mmdebstrap", "--quiet", "--variant=extract", f"--architectures={architecture}"]
    subprocess.run(
        [*command, f"--include={','.join(_PACKAGES)}", RELEASE, str(root)], check=True, stdin=subprocess.DEVNULL
    )


def base_files(root: Path) -> dict[str, bytes | str]:
    """Return the files below the interpreter by path: a file's content, or a link's target as text.

    Shared libraries with their licences, certificates, and the few files of /etc that the C library reads.
    """
    found: dict[str, bytes | str] = {}
    for pattern in ("lib*/*.so*", "lib/*-linux-gnu/*.so*", "usr/lib/*-linux-gnu/*.so*", "usr/share/doc/*/copyright"):
        for path in root.glob(pattern):
            found[path.relative_to(root).as_posix()] = os.readlink(path) if path.is_symlink() else path.read_bytes()
    authorities = sorted((root / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    found[_CERTIFICATES] = b"".join(path.read_bytes() for path in authorities)
    # Where this OpenSSL looks for one file.
    found["usr/lib/ssl/cert.pem"] = f"/{_CERTIFICATES}"
    return found | {name: content.encode() for name, content in _ETC.items()}


def interpreter(root: Path, prefix: Path) -> None:
    """Make a prefix of the interpreter in `root`: its program, its standard library, and a folder for packages."""
    library = prefix / "lib" / f"python{PYTHON}"
    shutil.copytree(root / "usr/lib" / f"python{PYTHON}", library, symlinks=True)
    for path in library.rglob("*"):
        # Links into Debian's /etc, which is not shipped.
        if path.is_symlink() and not path.exists():
            path.unlink()
    (library / "site-packages").mkdir()
    # Debian's Python looks there, and Lamella ships packages in site-packages.
    (library / "dist-packages").symlink_to("site-packages")
    (prefix / "bin").mkdir()
    shutil.copy2(root / "usr/bin" / f"python{PYTHON}", prefix / "bin")
    for name in ("python", "python3"):
        (prefix / "bin" / name).symlink_to(f"python{PYTHON}")
    # States the version of an interpreter that can't run here.
    header = prefix / "include" / f"python{PYTHON}" / "patchlevel.h"
    header.parent.mkdir(parents=True)
    header.write_text(f'#define PY_VERSION "{_version(root)}"\n')


def _version(root: Path) -> str:
    with gzip.open(root / f"usr/share/doc/libpython{PYTHON}-minimal/changelog.Debian.gz", "rt") as file:
        found = re.match(rf"python{re.escape(PYTHON)} \((\d+\.\d+\.\d+)", file.readline())
    if not found:
        raise SystemExit(f"libpython{PYTHON}-minimal: no version in its changelog")
    return found[1]
