"""Unpack a wheel into a folder, as pip would into an environment at a prefix.

`wheel` reads the archive and checks each file against RECORD as it is read, `installer` decides where the file belongs, and
the destination below writes it. It stands in for `installer.destinations.SchemeDictionaryDestination`, whose shebangs break
if the prefix is long or has spaces. Sources:
PyPA specifications, "Binary distribution format" (the data folder, scripts) and "Entry points"; pip for the folder of
headers.
"""

from __future__ import annotations

import os
import zipfile
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

from installer import install
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import Hash, RecordEntry
from installer.sources import WheelFile
from installer.utils import construct_record_file, copyfileobj_with_hashing
from wheel.wheelfile import WheelError
from wheel.wheelfile import WheelFile as Archive

from lamella.builder.content import scripts
from lamella.builder.errors import BuilderError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from installer.sources import WheelContentElement
    from installer.utils import Scheme

_PYTHON = b"#!python"


def unpack(
    path: str,
    target: str,
    *,
    short: str,
    prefix: str,
    advice: str = "correct the project's build, or push without --wheels",
) -> None:
    """Unpack the wheel at `path` into the folder `target`, for Python `short` (such as 3.12) at `prefix`.

    `advice`: what to do about a damaged wheel.

    Raises `BuilderError` if the wheel is damaged, leads out of the environment or has an unsupported Wheel-Version, and
    `OSError` if a file can't be read or written.
    """
    try:
        with Archive(path) as archive:
            source = _Source(archive)
            # Names alone: the archive compares each file's hash as it is read, so nothing is read twice.
            source.validate_record(validate_contents=False)
            install(source, _Destination(target, source.dist_info_dir.partition("-")[0], short, prefix), {})
    except (InstallerError, WheelError, zipfile.BadZipFile, ValueError, KeyError) as error:
        # InvalidWheelSource carries the source before its reason; a KeyError is zipfile's for a missing member.
        reason = error.args[-1] if isinstance(error, (InstallerError, KeyError)) and error.args else error
        raise BuilderError(f"wheel {os.path.basename(path)}: {str(reason).rstrip('.')}; {advice}") from None


class _Source(WheelFile):
    """A wheel file with the leniency of pip where `installer` stops at an assertion or with a warning."""

    @property
    def data_dir(self) -> str:
        """The data folder beside the metadata: a file's name may spell the project otherwise."""
        return f"{self.dist_info_dir.removesuffix('.dist-info')}.data"

    def read_dist_info(self, filename: str) -> str:
        """Content of a metadata file; entry points only as far as they are valid."""
        content = super().read_dist_info(filename)
        if filename != "entry_points.txt":
            return content
        valid = scripts.entry_points(content.encode())
        return "\n".join(["[console_scripts]", *(f"{name} = {':'.join(point)}" for name, point in valid.items())])

    def get_contents(self) -> Iterator[WheelContentElement]:
        """All files but byte code, which is compiled when the layer is built."""
        for element in super().get_contents():
            if "__pycache__" not in element[0][0].split("/"):
                yield element


class _Destination(WheelDestination):
    """Writes below `target` what an environment would hold at `prefix`."""

    def __init__(self, target: str, distribution: str, short: str, prefix: str) -> None:
        site = f"lib/python{short}/site-packages"
        self._target = target
        self._prefix = prefix
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
        place = os.path.join(self._target, self._folders[scheme], path)
        folder = os.path.dirname(place)
        if folder not in self._made:
            os.makedirs(folder, exist_ok=True)
            self._made.add(folder)
        with open(place, "wb") as file:
            digest, size = copyfileobj_with_hashing(stream, file, "sha256")
        os.chmod(place, 0o755 if executable else 0o644)
        return RecordEntry(path, Hash("sha256", digest), size)
