"""Debian's interpreters for several architectures as one image, and what runs their programs on this machine."""

from __future__ import annotations

import os
import posixpath
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.builder.scanning.ld_so import GLIBC, LOADER
from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import MANIFEST, Descriptor, Platform
from node_part import debian
from support.engines import need
from support.once import once
from support.published import push_image, push_index
from support.tars import extract

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PLATFORMS = (Platform("linux", "amd64"), Platform("linux", "arm64"))
SHORT = debian.PYTHON
_PACKAGES = (f"python{SHORT}-minimal", f"libpython{SHORT}-stdlib", "libstdc++6")
_EMULATORS = {"amd64": "qemu-x86_64-static", "arm64": "qemu-aarch64-static"}


@dataclass(frozen=True)
class DebianPythons:
    """An image with a Python for each of `PLATFORMS`, and the C library of each."""

    folder: Path

    @property
    def reference(self) -> str:
        """Reference of the image."""
        return f"oci:{self.folder / 'image'}:python"

    def command(self, platform: Platform) -> list[str]:
        """Start of a command line that runs a program for `platform`, with nothing of its system but the C library."""
        if platform == Platform.here():
            return []
        return [need(_EMULATORS[platform.architecture]), "-L", str(self._libraries(platform))]

    def make(self) -> None:
        """Unpack Debian's packages, of which nothing runs."""
        self.folder.mkdir()
        storage = OciLayout(str(self.folder / "image"), create=True)
        with ThreadPoolExecutor() as threads:
            archives = list(threads.map(self._unpacked, PLATFORMS))
        entries = []
        for platform, archive in zip(PLATFORMS, archives, strict=True):
            described = push_image(storage, [archive.read_bytes()], platform=platform).descriptor
            entries.append(Descriptor(MANIFEST, described.digest, described.size, platform=platform))
            _extract_glibc(archive, self._libraries(platform))
            archive.unlink()
        push_index(storage, entries, "python")

    def _unpacked(self, platform: Platform) -> Path:
        archive = self.folder / f"{platform.architecture}.tar"
        command = [need("mmdebstrap"), "--quiet", "--variant=extract", f"--architectures={platform.architecture}"]
        command += [f"--include={','.join(_PACKAGES)}", debian.RELEASE, str(archive)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return archive

    def _libraries(self, platform: Platform) -> Path:
        return self.folder / platform.architecture


def debian_pythons(shared: Path) -> DebianPythons:
    """Make the image once a run."""
    made = DebianPythons(shared / "debian-pythons" / "made")
    with once(made.folder) as mine:
        if mine:
            made.make()
    return made


def _extract_glibc(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as entries:
        wanted: list[tarfile.TarInfo] = [
            entry
            for entry in entries
            if _is_glibc(name := posixpath.basename(entry.name)) or (entry.issym() and name in ("lib", "lib64"))
        ]
        _extract(entries, wanted, folder)


def _is_glibc(name: str) -> bool:
    return name in GLIBC or bool(LOADER.fullmatch(name))


def _extract(entries: tarfile.TarFile, wanted: Sequence[tarfile.TarInfo], folder: Path) -> None:
    for entry in wanted:
        # The loader's link is absolute in some packages.
        if entry.issym() and posixpath.isabs(entry.linkname):
            start = posixpath.dirname(f"/{entry.name.removeprefix('./')}")
            entry.linkname = posixpath.relpath(entry.linkname, os.fspath(start))
    extract(entries, folder, wanted, trusted=True)
