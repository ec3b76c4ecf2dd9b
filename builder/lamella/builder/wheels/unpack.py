"""Unpack a wheel into a folder, as pip would into an environment at a prefix.

`wheel` reads the archive and checks each file against RECORD as it is read, `installer` decides where the file belongs, and
the destination below writes it. It stands in for `installer.destinations.SchemeDictionaryDestination`, whose shebangs break
if the prefix is long or has spaces. Sources:
PyPA specifications, "Binary distribution format" (the data folder, scripts) and "Entry points"; pip for the folder of
headers.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import FileIO

    from installer.sources import WheelContentElement
    from installer.utils import Scheme

_PYTHON = b"#!python"
_BLOCK = 1 << 20


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

    Raises `BuilderError` if the wheel is damaged, leads out of the environment or has an unsupported Wheel-Version, and
    `OSError` if a file can't be read or written.
    """
    try:
        with Archive(path) as archive:
            source = _Source(archive)
            _check_names(archive)
            destination = _Destination(target, source.dist_info_dir.partition("-")[0], short, prefix)
            install(source, destination, {})
            return tuple(sorted(destination.written))
    except (InstallerError, WheelError, zipfile.BadZipFile, ValueError, KeyError) as error:
        # InvalidWheelSource carries the source before its reason; a KeyError is zipfile's for a missing member.
        reason = error.args[-1] if isinstance(error, (InstallerError, KeyError)) and error.args else error
        raise BuilderError(f"wheel {os.path.basename(path)}: {str(reason).rstrip('.')}; {advice}") from None


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
        place = f"{self._target}/{name}"
        folder = os.path.dirname(place)
        if folder not in self._made:
            os.makedirs(folder, exist_ok=True)
            self._made.add(folder)
        hashed, size = hashlib.sha256(), 0
        # Most files are smaller than one block: a buffer would be one more copy.
        with open(place, "wb", buffering=0) as file:
            while block := stream.read(_BLOCK):
                hashed.update(block)
                size += _written(file, block)
        os.chmod(place, 0o755 if executable else 0o644)
        self.written.add(name)
        return RecordEntry(path, Hash("sha256", urlsafe_b64encode(hashed.digest()).decode().rstrip("=")), size)


def _written(file: FileIO, block: bytes) -> int:
    done = file.write(block)
    while done < len(block):
        done += file.write(memoryview(block)[done:])
    return done
