"""Folders of packages on the environment's sys.path, in order. On a node they are one site-packages."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.prefix.locate import SHARED
from lamella.layers.settings.homes import home

if TYPE_CHECKING:
    from lamella.builder.prefix.interpreter import InterpreterFacts, Prefix


class Site(NamedTuple):
    """A folder of packages."""

    source: str
    borrowed: bool
    """Whether it is outside the environment's own prefix: a system's, or the user's own."""
    target: bool = False
    """Whether `pip install --target` made it: scripts are in its own `bin`."""

    @property
    def root(self) -> str:
        """Target of `..` in its RECORDs: the prefix to which its scripts are installed."""
        return self.source if self.target else os.path.normpath(os.path.join(self.source, "..", "..", ".."))


def sites(prefix: Prefix) -> list[Site]:
    """Existing sites. Source: site.py, `main`; Debian's changes to it."""
    own = Site(os.path.join(prefix.path, "lib", f"python{prefix.python.short}", "site-packages"), False)
    user = Site(os.path.join(user_base() or os.devnull, "lib", f"python{prefix.python.short}", "site-packages"), True)
    if is_system(prefix):
        found = [user, *_system(prefix.path, prefix.python)]
    elif prefix.kind == "venv" and prefix.sees_system:
        found = [own, user, *_system(prefix.python.base_prefix, prefix.python)]
    else:
        found = [own]
    return [site for site in found if os.path.isdir(site.source)]


def is_system(prefix: Prefix) -> bool:
    """Whether the prefix is a whole system's, in which only Python's files are the environment."""
    return prefix.kind == "plain" and os.path.realpath(prefix.path) in SHARED


def user_base() -> str:
    """Folder to which `pip install --user` installs; empty for a user without a home."""
    return os.environ.get("PYTHONUSERBASE") or (f"{home()}/.local" if home() else "")


def _system(folder: str, python: InterpreterFacts) -> list[Site]:
    name = f"python{python.short}"
    if python.debian:
        folders = (f"local/lib/{name}", "lib/python3", f"lib/{name}")
        return [Site(os.path.join(folder, inner, "dist-packages"), True) for inner in folders]
    # Fedora and openSUSE have compiled modules in lib64; on others it is lib itself, or missing.
    real = dict.fromkeys(os.path.realpath(os.path.join(folder, lib, name)) for lib in ("lib64", "lib"))
    return [Site(os.path.join(each, "site-packages"), True) for each in real]
