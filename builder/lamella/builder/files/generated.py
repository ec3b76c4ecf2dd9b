"""Files that ship in place of an installer's own, kept in the cache by their content."""

from __future__ import annotations

import hashlib
import os
import tempfile

from lamella.builder.cache_folder import cannot_write
from lamella.layers.hardening.permissions import make_folders


def generated(cache_path: str, name: str, content: bytes) -> str:
    """Return the path of a file `name` with `content`; it is written once. Raises `CacheError` if it cannot be."""
    folder = os.path.join(generated_in(cache_path), hashlib.sha256(content).hexdigest())
    source = os.path.join(folder, name)
    try:
        if not os.path.exists(source):
            make_folders(folder)
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
                file.write(content)
            os.chmod(file.name, 0o644)
            os.replace(file.name, source)
    except OSError as error:
        raise cannot_write(cache_path, "the files that Lamella generates", error) from None
    return source


def generated_in(cache_path: str) -> str:
    """Return the folder of the cache that has these files, with a slash at its end."""
    return os.path.join(cache_path, "generated", "")
