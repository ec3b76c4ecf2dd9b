"""Layer caches that hold the layer of the tests' interpreter, which takes seconds to build."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.push import push
from lamella.builder.scanning.options import ScanOptions
from support.installed import venv
from support.once import once

if TYPE_CHECKING:
    from pathlib import Path


def warm_cache(shared: Path, folder: Path) -> Path:
    """Make `folder` a cache with that layer alone, for a test that changes or inspects its cache."""
    made = shared / "interpreter" / "cache"
    with once(made) as mine:
        if mine:
            prefix = venv(made.parent / "env")
            options = ScanOptions(cache=str(made))
            push(f"oci:{made.parent}/layout:v1", str(prefix), scan_options=options, cache=LayerCache(str(made)))
    return shutil.copytree(made, folder)
