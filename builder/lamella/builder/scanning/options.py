"""Options of a scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamella.layers.oci.documents import Platform


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """Options of `scan`. The defaults ship the environment itself, for this machine's platform."""

    local: str | None = None
    """Folder whose code ships too, as one local package. An empty string ships none, even with `working_directory`."""
    working_directory: bool = False
    """Ship the code of the working directory if it is a project and `local` is None."""
    include: tuple[str, ...] = ()
    """Additional files and folders of the local package."""
    ignore: tuple[str, ...] = ()
    """Names of packages to leave out."""
    allow_large: bool = False
    """Accept more than 100 MiB of local code."""
    system_libraries: bool = True
    """Ship the shared libraries of this system that the environment needs."""
    wheels: bool = False
    """Build local projects as wheels and ship those, kept in the cache folder. Always on for another platform."""
    image_prefix: str = "/opt/env"
    """Path of the environment on nodes. Files that cannot be rewritten for it are findings."""
    platform: Platform | None = None
    """Platform to record, such as one with a variant; None for the interpreter's own."""
    companion: str | None = None
    """Python of the environment's minor version that runs here and compiles for it; the environment's own interpreter is
    then not run, as for another machine. Empty to look for one on PATH. None to run the environment's if it can run here."""
    cache: str | None = None
    """Folder of known hashes, built wheels and rewritten `.pth` files; None for the user's cache folder."""
