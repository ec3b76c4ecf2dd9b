"""The user's folders: the home, and those that the XDG Base Directory specification derives from it.

Everything that looks below a home asks here. A user may have none: containers run with numbers that have no entry in
/etc/passwd, and without HOME. `os.path.expanduser` then leaves `~`, which would become a folder of that name in the working
directory; so would the relative values that the specification has programs ignore.
"""

from __future__ import annotations

import os

NOT_READABLE = "set HOME to this user's home, or allow this user to read the file"
"""Advice for a file of settings that cannot be read: after su and setpriv, HOME is the other user's."""


def home() -> str:
    """This user's home, absolute; empty if there is none."""
    named = os.environ.get("HOME", "")
    if not os.path.isabs(named):
        named = _home_of(os.getuid()) if hasattr(os, "getuid") else os.path.expanduser("~")
    return named if os.path.isabs(named) else ""


def cache_folder() -> str:
    """The folder of all programs' caches, absolute; empty if there is none."""
    return _folder("XDG_CACHE_HOME", ".cache")


def config_folder() -> str:
    """The folder of all programs' settings, absolute; empty if there is none."""
    return _folder("XDG_CONFIG_HOME", ".config")


def data_folder() -> str:
    """The folder of all programs' data, absolute; empty if there is none."""
    return _folder("XDG_DATA_HOME", os.path.join(".local", "share"))


def shared_config_folders() -> list[str]:
    """The folders of settings for all users, absolute, the most preferred first."""
    return [each for each in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":") if os.path.isabs(each)]


def settings_file() -> str:
    """The file with this user's settings for Lamella, absolute; empty for a user without a home."""
    return os.path.join(config_folder(), "lamella", "config.toml") if config_folder() else ""


def runtime_folder() -> str:
    """The folder of this login's sockets and secrets, absolute; empty if there is none."""
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    return named if os.path.isabs(named) else ""


def expanded(path: str) -> str:
    """`path` with the home of this or another user in place of `~` or `~name`; without such a home, as it is."""
    first, slash, rest = path.partition("/")
    if first == "~":
        return f"{home().rstrip('/')}{slash}{rest}" or "/" if home() else path
    return os.path.expanduser(path)


def _folder(variable: str, below_home: str) -> str:
    named = os.environ.get(variable, "")
    if os.path.isabs(named):
        return named
    return os.path.join(home(), below_home) if home() else ""


def _home_of(user: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(user).pw_dir
    except KeyError:
        return ""
