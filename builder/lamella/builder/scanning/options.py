"""What belongs to an environment, as its user decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamella.layers.oci.documents import Platform


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """Options of `scan`. Each default ships what the environment itself holds, for this machine's platform."""

    local: str | None = None
    """A folder whose code ships too, as one local package. An empty string ships none, whatever `working_directory` says."""
    working_directory: bool = False
    """Ship the code of the working directory if it is a project's and `local` is None."""
    include: tuple[str, ...] = ()
    """More files and folders of the local package."""
    ignore: tuple[str, ...] = ()
    """Names of packages that do not ship."""
    allow_large: bool = False
    """Accept more than 100 MiB of local code."""
    system_libraries: bool = True
    """Ship the shared libraries of this system that the environment needs."""
    wheels: bool = False
    """Build local projects as wheels and ship those, kept in the cache folder. Always so for another machine's environment."""
    image_prefix: str = "/opt/env"
    """Where the environment lives on nodes: files that can't be rewritten for it are findings."""
    platform: Platform | None = None
    """The platform to record, such as one with a variant; None for the interpreter's own."""
    cache: str | None = None
    """Folder of known hashes, built wheels and rewritten `.pth` files; None for the user's cache folder."""
