"""The folders of packages on the environment's sys.path, in its order. All of them are one site-packages on a node."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.prefix.locate import SHARED

if TYPE_CHECKING:
    from lamella.builder.prefix.interpreter import Facts
    from lamella.builder.prefix.locate import Located


class Site(NamedTuple):
    """One folder of packages."""

    source: str
    borrowed: bool
    """Whether it is outside of the environment's own prefix: a system's, or the user's own."""

    @property
    def root(self) -> str:
        """What `..` of a RECORD in it leads to: the prefix that its scripts are installed to."""
        return os.path.normpath(os.path.join(self.source, "..", "..", ".."))


def sites(located: Located, facts: Facts) -> list[Site]:
    """Those that exist. Source: site.py, `main`; Debian's changes to it."""
    own = Site(os.path.join(located.prefix, "lib", f"python{facts.short}", "site-packages"), False)
    user = Site(os.path.join(user_base(), "lib", f"python{facts.short}", "site-packages"), True)
    if is_system(located):
        found = [user, *_system(located.prefix, facts)]
    elif located.configuration.get("include-system-site-packages", "").lower() == "true":
        found = [own, user, *_system(facts.base_prefix, facts)]
    else:
        found = [own]
    return [site for site in found if os.path.isdir(site.source)]


def is_system(located: Located) -> bool:
    """Whether the prefix is the whole system's, of which only what is Python's is the environment."""
    return located.kind == "plain" and os.path.realpath(located.prefix) in SHARED


def user_base() -> str:
    """Where `pip install --user` installs to."""
    return os.environ.get("PYTHONUSERBASE") or os.path.join(os.path.expanduser("~"), ".local")


def _system(prefix: str, facts: Facts) -> list[Site]:
    python = f"python{facts.short}"
    if facts.debian:
        folders = (f"local/lib/{python}", "lib/python3", f"lib/{python}")
        return [Site(os.path.join(prefix, folder, "dist-packages"), True) for folder in folders]
    # Fedora and openSUSE keep what is compiled in lib64; elsewhere that is lib itself, or not there.
    real = dict.fromkeys(os.path.realpath(os.path.join(prefix, lib, python)) for lib in ("lib64", "lib"))
    return [Site(os.path.join(folder, "site-packages"), True) for folder in real]
