"""Debian's `docker-registry` (CNCF distribution) on a free loopback port, with its storage in a folder of the comparison."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.comparison.programs.commands import Commands

PROGRAM = "docker-registry"
HOW = "sudo apt install docker-registry, or give one with --registry"
_CONFIG = """\
version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {folder}, maxthreads: 100}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:0", secret: comparison}}
"""


def version(commands: Commands) -> str:
    """Return the program with its version: `docker-registry 2.8.2`."""
    found = re.search(r"v?(\d+\.[\w.+-]+)", commands.run([PROGRAM, "--version"]).rpartition("distribution")[2])
    return f"{PROGRAM} {found[1] if found else ''}".strip()


@contextlib.contextmanager
def registry(commands: Commands, folder: str) -> Iterator[str]:
    """Serve the registry whose storage is `folder`, and yield its HOST:PORT."""
    os.makedirs(folder, exist_ok=True)
    config = f"{folder}.yml"
    with open(config, "w", encoding="utf-8") as file:
        file.write(_CONFIG.format(folder=folder))
    with commands.daemon([PROGRAM, "serve", config], "listening on 127.0.0.1:", is_server=True) as line:
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert found, line
        yield f"localhost:{found[1]}"
