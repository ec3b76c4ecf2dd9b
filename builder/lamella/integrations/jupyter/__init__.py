"""The magic `%lamella` of notebooks and IPython: `%load_ext lamella.integrations.jupyter`.

It runs the command of the same name, with the kernel's own environment as the default, and shows what `push`, `diff` and
`scan` found as tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load_ipython_extension", "unload_ipython_extension"]

_MAGIC = "lamella"


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Add the magic and its completion. Idempotent."""
    from lamella.integrations.jupyter.magic import Magic

    magic = Magic(shell)
    shell.magics_manager.register_function(magic.run, "line", _MAGIC)
    shell.set_hook("complete_command", magic.complete, str_key=f"%{_MAGIC}")


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove the magic."""
    shell.magics_manager.magics["line"].pop(_MAGIC, None)
