"""Hatchling's build hook: put manual pages and completion scripts into the wheel, for `share/` of its prefix."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parents[1]


class ShareHook(BuildHookInterface[Any]):
    """Write the files before the wheel is made, and remove them afterwards."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to `shared_data`. An editable installation has none."""
        if version == "editable":
            return
        sys.path[:0] = [str(ROOT / part) for part in ("layers", "builder", "cli")]
        from lamella.cli.manual_pages import files

        self._folder = TemporaryDirectory()
        for number, (path, text) in enumerate(files(self.metadata.version).items()):
            file = Path(self._folder.name) / str(number)
            file.write_text(text)
            build_data["shared_data"][str(file)] = path

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove the files."""
        if version != "editable":
            self._folder.cleanup()
