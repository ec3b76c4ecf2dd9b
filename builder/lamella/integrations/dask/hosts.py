"""The hosts of a cluster, and how a command starts on one."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from lamella.builder import LamellaError
from lamella.layers.text import escaped

SSH = ("ssh", "-o", "BatchMode=yes", "{host}", "{command}")
"""Start a command by the ssh program, with the user's configuration and keys, and never wait for a password."""


class ClusterError(LamellaError):
    """A cluster, or a process of one, that could not start or change."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts of a cluster: the scheduler's first, then one for each worker. Repeat a name for several processes."""

    names: tuple[str, ...]
    """Names or addresses, as `connect` uses them. Raises `ClusterError` for one that begins with a hyphen."""
    connect: tuple[str, ...] = SSH
    """Words before each command, with `{host}` for the host's name. A word `{command}` stands for the whole command as one
    quoted string, as ssh's remote shell reads it; without such a word the command's own words follow. Empty: this machine."""
    lamella: tuple[str, ...] = ("lamella",)
    """The program of Lamella on the hosts, with options of `lamella run` that come first, such as `--verbose`."""

    def __post_init__(self) -> None:
        for name in self.names:
            if name.startswith("-"):
                raise ClusterError(f"hosts: {escaped(name, 100)}: not a host's name, as programs take it for an option")

    def command(self, host: str, *words: str) -> list[str]:
        """Return the command line that starts `words`, a verb of Lamella and its arguments, on `host`."""
        line = [*self.lamella, *words]
        connect = [word.replace("{host}", host) for word in self.connect]
        if "{command}" not in connect:
            return [*connect, *line]
        return [shlex.join(line) if word == "{command}" else word for word in connect]
