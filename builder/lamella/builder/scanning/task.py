"""The task of one scan: its environment, its options, and what it reads with."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamella.builder.local.code_roots import LocalCode
from lamella.builder.scanning.disk import Disk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.builder.files.content_cache import ContentCache
    from lamella.builder.files.read import FileContent
    from lamella.builder.prefix.interpreter import Prefix
    from lamella.builder.scanning.options import ScanOptions
    from lamella.layers.oci.documents import Platform
    from lamella.layers.progress.display import Progress


@dataclass(frozen=True, slots=True)
class ScanTask:
    """One scan: its environment, its options, and what it reads with."""

    prefix: Prefix
    options: ScanOptions
    platform: Platform
    searched: tuple[bytes, ...]
    """Prefixes to look for in files."""
    hashes: ContentCache
    progress: Progress
    disk: Disk = field(default_factory=Disk)

    def read(self, files: Mapping[str, os.stat_result]) -> dict[str, FileContent]:
        """Return the contents of `files`, absolute path to stat."""
        return self.hashes.contents(files, self.searched, self.progress)

    @property
    def local(self) -> LocalCode:
        """Local code to ship."""
        options = self.options
        folder = options.local or (os.curdir if options.working_directory and options.local is None else "")
        return LocalCode(folder, options.include, options.allow_large, asked=bool(options.local))

    @property
    def wheels(self) -> bool:
        """Whether local projects ship as wheels."""
        # This machine compiles for itself: for another platform, a local project is whatever its wheel contains.
        return self.options.wheels or self.prefix.is_foreign
