"""Entries of PYTHONPATH that are not the user's own code: folders of installed packages, zip files and eggs."""

from __future__ import annotations

import glob
import os


def import_path(base: str) -> list[str]:
    """Entries of PYTHONPATH except `base`, absolute, each once, if they exist."""
    entries = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return [entry for entry in dict.fromkeys(entries) if os.path.exists(entry) and entry != base]


def target_folders(base: str) -> list[str]:
    """Folders with installed packages, as `pip install --target` makes them; none without `base`, if no code ships."""
    return [entry for entry in import_path(os.path.abspath(base)) if is_target(entry)] if base else []


def archives(base: str) -> list[str]:
    """Zip files and eggs; none without `base`, if no local code ships."""
    return [entry for entry in import_path(os.path.abspath(base)) if is_archive(entry)] if base else []


def is_target(folder: str) -> bool:
    """Whether an installer put packages into `folder`."""
    return bool(glob.glob(os.path.join(glob.escape(folder), "*.dist-info", "METADATA")))


def is_archive(path: str) -> bool:
    """Whether Python imports from `path` as from a zip file, or an egg, which has its metadata in it."""
    if os.path.isdir(path):
        return path.endswith(".egg") and os.path.isfile(os.path.join(path, "EGG-INFO", "PKG-INFO"))
    if not os.path.isfile(path):
        return False
    import zipfile  # rarely needed, and slow to import

    return zipfile.is_zipfile(path)
