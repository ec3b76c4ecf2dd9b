"""Unpack a wheel into a folder, as pip would into an environment at a prefix.

`wheel` reads the archive and checks each file against RECORD as it is read, `installer` decides where the file belongs, and
the destination below writes it. It stands in for `installer.destinations.SchemeDictionaryDestination`, whose shebangs break
if the prefix is long or has spaces. Sources: PyPA specifications, "Binary distribution format" (the data folder, scripts) and
"Entry points"; pip for the folder of headers.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import os
import stat
import sys
import zipfile
import zlib
from base64 import urlsafe_b64encode
from collections import Counter
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO, cast

from installer import install
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import Hash, RecordEntry
from installer.sources import WheelFile
from installer.utils import construct_record_file
from wheel.wheelfile import WheelError
from wheel.wheelfile import WheelFile as Archive

from lamella.builder.content import scripts
from lamella.builder.errors import BuilderError
from lamella.builder.files import disk_names
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from installer.sources import WheelContentElement
    from installer.utils import Scheme

_PYTHON = b"#!python"
_BLOCK = 1 << 20
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NAMES = {errno.EINVAL, errno.ENAMETOOLONG, errno.ENOENT} | ({errno.EACCES} if sys.platform == "win32" else set())
"""Errors of a file, in a folder that is there, whose name or path is the reason."""
_DAMAGED = (
    InstallerError,
    WheelError,
    zipfile.BadZipFile,
    zlib.error,
    csv.Error,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,  # an encrypted member, and a compression that zipfile lacks
)


class _NameRefused(Exception):
    """A path that this disk cannot hold."""


def unpack(
    path: str,
    target: str,
    *,
    short: str,
    prefix: str,
    advice: str = "correct the project's build, or push without --wheels",
) -> tuple[str, ...]:
    """Unpack the wheel at `path` into the folder `target`, for Python `short` (such as 3.12) at `prefix`.

    Returns the paths of its files relative to `target`, sorted.

    `advice`: what to do about a damaged wheel.

    Raises `BuilderError` if the wheel is damaged, leads out of the environment, has an unsupported Wheel-Version or a file
    that the disk cannot hold by its name, and `OSError` if a file can't be read or written.
    """
    name = os.path.basename(path)
    try:
        with Archive(path) as archive:
            _check_names(archive)
            source = _Source(archive)
            destination = _Destination(target, source.dist_info_dir.partition("-")[0], short, prefix)
            install(source, destination, {})
            written = tuple(sorted(destination.written))
    except _DAMAGED as error:
        # InvalidWheelSource carries the source before its reason; a KeyError is zipfile's for a missing member.
        reason = error.args[-1] if isinstance(error, (InstallerError, KeyError)) and error.args else error
        raise BuilderError(f"wheel {name}: {escaped(str(reason), 500).rstrip('.')}; {advice}") from None
    except _NameRefused as error:
        raise BuilderError(disk_names.refusal(f"wheel {name}", str(error))) from None
    if lost := disk_names.unlisted(target, written):
        raise BuilderError(disk_names.refusal(f"wheel {name}", lost[0]))
    return written


def _check_names(archive: Archive) -> None:
    """Refuse what the archive does not check: it compares the hash of each file as it is read, so none is read twice."""
    names = archive.namelist()
    if len(set(names)) != len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise WheelError(f"holds two files {twice}")


class _Source(WheelFile):
    """A wheel file with the leniency of pip where `installer` stops at an assertion or with a warning."""

    @property
    def data_dir(self) -> str:
        """The data folder beside the metadata: a file's name may spell the project otherwise."""
        return f"{self.dist_info_dir.removesuffix('.dist-info')}.data"

    @property
    def dist_info_filenames(self) -> list[str]:
        """Names of the files in the metadata folder."""
        base = f"{self.dist_info_dir}/"
        names = self._zipfile.namelist()
        return [name.removeprefix(base) for name in names if name.startswith(base) and not name.endswith("/")]

    def read_dist_info(self, filename: str) -> str:
        """Content of a metadata file; entry points only as far as they are valid."""
        content = super().read_dist_info(filename)
        if filename != "entry_points.txt":
            return content
        valid = scripts.entry_points(content.encode())
        return "\n".join(["[console_scripts]", *(f"{name} = {':'.join(point)}" for name, point in valid.items())])

    def get_contents(self) -> Iterator[WheelContentElement]:
        """All files but byte code, which is compiled when the layer is built."""
        for item in self._zipfile.infolist():
            if item.is_dir() or "__pycache__" in item.filename.split("/"):
                continue
            mode = item.external_attr >> 16
            with self._zipfile.open(item) as stream:
                yield (item.filename, "", ""), cast("BinaryIO", stream), stat.S_ISREG(mode) and bool(mode & 0o111)


class _Destination(WheelDestination):
    """Writes below `target` what an environment would hold at `prefix`."""

    def __init__(self, target: str, distribution: str, short: str, prefix: str) -> None:
        site = f"lib/python{short}/site-packages"
        self._target = target
        self._prefix = prefix
        self.written: set[str] = set()
        """Paths of the files that were written, relative to the folder."""
        self._made: set[str] = set()
        self._entry_points: dict[str, RecordEntry] = {}
        self._folders: dict[str, str] = {
            "purelib": site,
            "platlib": site,
            "scripts": "bin",
            "data": "",
            "headers": f"include/site/python{short}/{distribution}",
        }

    def write_script(self, name: str, module: str, attr: str, section: str) -> RecordEntry:  # noqa: ARG002
        """Write the console script `name`."""
        content = scripts.script(module, attr, self._prefix)
        self._entry_points[name] = self._write("scripts", name, BytesIO(content), executable=True)
        return self._entry_points[name]

    def write_file(
        self, scheme: Scheme, path: str | os.PathLike[str], stream: BinaryIO, is_executable: bool
    ) -> RecordEntry:
        """Write a file of the wheel; a script names the environment's interpreter and is executable."""
        name = os.fspath(path)
        if scheme != "scripts":
            return self._write(scheme, name, stream, executable=is_executable)
        if name in self._entry_points:
            return self._entry_points[name]  # as with pip, the entry point wins
        content = stream.read()
        first, _, rest = content.partition(b"\n")
        if first.startswith(_PYTHON):
            content = scripts.shebang(self._prefix) + rest  # installers drop the arguments
        return self._write(scheme, name, BytesIO(content), executable=True)

    def finalize_installation(
        self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]
    ) -> None:
        """Write RECORD."""
        root = os.path.join("/", self._folders[scheme])

        def leading(other: Scheme) -> str | None:
            return None if other == scheme else os.path.relpath(os.path.join("/", self._folders[other]), root) + "/"

        with construct_record_file(records, leading) as stream:
            self._write(scheme, record_file_path, stream, executable=False)

    def _write(self, scheme: str, path: str, stream: BinaryIO, *, executable: bool) -> RecordEntry:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"{path} leads out of the environment")
        name = f"{self._folders[scheme]}/{path}".lstrip("/")
        mode = 0o755 if executable else 0o644
        descriptor = self._open(name, mode)
        hashed, size = hashlib.sha256(), 0
        try:
            while block := stream.read(_BLOCK):
                hashed.update(block)
                size += _written(descriptor, block)
            if sys.platform != "win32":
                os.fchmod(descriptor, mode)  # whatever this user's umask is
        finally:
            os.close(descriptor)
        self.written.add(name)
        return RecordEntry(path, Hash("sha256", urlsafe_b64encode(hashed.digest()).decode().rstrip("=")), size)

    def _open(self, name: str, mode: int) -> int:
        place = f"{self._target}/{name}"
        folder = os.path.dirname(place)
        try:
            if folder not in self._made:
                os.makedirs(folder, exist_ok=True)
                self._made.add(folder)
            return os.open(place, _WRITE, mode)
        except OSError as error:
            if error.errno in _NAMES and os.path.isdir(folder):
                raise _NameRefused(name) from None
            raise


def _written(descriptor: int, block: bytes) -> int:
    done = os.write(descriptor, block)
    while done < len(block):
        done += os.write(descriptor, memoryview(block)[done:])
    return done
