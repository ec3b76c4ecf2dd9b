"""A file to a registry and from it, as an OCI artifact, by oras. The blobs are streamed, and not held in memory.

A program of its own, so that its processor time and memory are those of the machine that runs it.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamella.comparison.programs.commands import Commands

_CHUNK = 1 << 20


def push_file(commands: Commands, reference: str, path: str) -> None:
    """Push the file at `path` as `reference`."""
    commands.run([sys.executable, "-m", __name__, "push", reference, path])


def pull_file(commands: Commands, reference: str, path: str, known: str = "") -> str:
    """Pull the file of `reference` to `path`, unless its digest is `known`, and return its digest."""
    return commands.run([sys.executable, "-m", __name__, "pull", reference, path, known]).strip()


def main() -> None:
    """Push or pull, as the command line asks."""
    # jsonschema, which oras imports, takes more than a second to load this grammar of addresses if
    # it is installed. No schema here has a format.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    import oras.provider

    registry = oras.provider.Registry(insecure=True)
    verb, reference, path, *known = sys.argv[1:]
    if verb == "push":
        registry.push(reference, files=[path], disable_path_validation=True, do_chunked=True, quiet=True)
        return
    (layer,) = registry.get_manifest(reference)["layers"]
    if layer["digest"] not in known:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        container = registry.get_container(reference)
        with registry.get_blob(container, layer["digest"], stream=True) as response, open(path, "wb") as file:
            response.raise_for_status()
            shutil.copyfileobj(response.raw, file, _CHUNK)
        if os.path.getsize(path) != layer["size"]:
            sys.exit(f"error: {reference}: cut short; repeat the comparison")
    print(layer["digest"])


if __name__ == "__main__":
    main()
