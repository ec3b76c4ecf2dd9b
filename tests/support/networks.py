"""A network namespace with addresses of its own, for tests of where a client connects."""

from __future__ import annotations

import ctypes
import subprocess
from typing import TYPE_CHECKING, TypeVar

from support.engines import need, need_root
from support.people import in_child

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


def in_network(addresses: list[str], do: Callable[[], T]) -> T:
    """Return what `do` returns, or raise what it raises, in a child whose network has only these addresses."""
    need_root()
    ip = need("ip")

    def enter() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        subprocess.run([ip, "link", "set", "lo", "up"], check=True)
        for address in addresses:
            subprocess.run([ip, "address", "add", address, "dev", "lo"], check=True)

    return in_child(enter, do)
