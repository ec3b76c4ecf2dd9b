"""The pixi.lock of a conda environment: its packages with URLs and hashes, from which anybody can install it again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.builder.files.scratch import scratch_folder
from lamella.builder.resolving.conda import subdir_of
from lamella.builder.resolving.rattler_process import rattler_process
from lamella.builder.urls import text_without_credentials

if TYPE_CHECKING:
    from lamella.layers.oci.documents import Platform

NAME = "pixi.lock"


def pixi_lock(prefix: str, platform: Platform) -> str:
    """Text of a lock of the conda packages in `prefix`, without credentials. Raises `CannotResolve`.

    pip's packages are not in it, since rattler's lock has no hash for them.
    """
    with scratch_folder() as folder, rattler_process() as rattler:
        path = os.path.join(folder, NAME)
        rattler.ask("lock", prefix=prefix, subdir=subdir_of(platform), path=path, virtual=[])
        with open(path, encoding="utf-8") as file:
            return text_without_credentials(file.read())
