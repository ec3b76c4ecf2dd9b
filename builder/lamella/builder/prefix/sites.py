"""The folders of packages on the environment's sys.path, in its order. All of them are one site-packages on a node."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.prefix.locate import SHARED
from lamella.layers.homes import home

if TYPE_CHECKING:
    from lamella.builder.prefix.interpreter import Facts, Prefix


class Site(NamedTuple):
    """One folder of packages."""

    source: str
    borrowed: bool
    """Whether it is outside of the environment's own prefix: a system's, or the user's own."""

    @property
    def root(self) -> str:
        """What `..` of a RECORD in it leads to: the prefix that its scripts are installed to."""
        return os.path.normpath(os.path.join(self.source, "..", "..", ".."))


def sites(prefix: Prefix) -> list[Site]:
    """Those that exist. Source: site.py, `main`; Debian's changes to it."""
    own = Site(os.path.join(prefix.path, "lib", f"python{prefix.python.short}", "site-packages"), False)
    user = Site(os.path.join(user_base() or os.devnull, "lib", f"python{prefix.python.short}", "site-packages"), True)
    if is_system(prefix):
        found = [user, *_system(prefix.path, prefix.python)]
    elif prefix.configuration.get("include-system-site-packages", "").lower() == "true":
        found = [own, user, *_system(prefix.python.base_prefix, prefix.python)]
    else:
        found = [own]
    return [site for site in found if os.path.isdir(site.source)]


def is_system(prefix: Prefix) -> bool:
    """Whether the prefix is the whole system's, of which only what is Python's is the environment."""
    return prefix.kind == "plain" and os.path.realpath(prefix.path) in SHARED


def user_base() -> str:
    """Where `pip install --user` installs to; empty if this user has no home."""
    return os.environ.get("PYTHONUSERBASE") or (f"{home()}/.local" if home() else "")


def _system(folder: str, python: Facts) -> list[Site]:
    name = f"python{python.short}"
    if python.debian:
        folders = (f"local/lib/{name}", "lib/python3", f"lib/{name}")
        return [Site(os.path.join(folder, inner, "dist-packages"), True) for inner in folders]
    # Fedora and openSUSE keep what is compiled in lib64; elsewhere that is lib itself, or not there.
    real = dict.fromkeys(os.path.realpath(os.path.join(folder, lib, name)) for lib in ("lib64", "lib"))
    return [Site(os.path.join(each, "site-packages"), True) for each in real]
