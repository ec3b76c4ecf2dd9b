"""Memory that a command gives back to the system."""

from __future__ import annotations

import os
import sys

_M_MMAP_THRESHOLD = -3  # <malloc.h>
_M_ARENA_MAX = -8
_LARGE, _LARGE_ON_FEW = 1 << 20, 8 << 20
"""Bytes of a block that goes back. Up to 8 MiB, a compressed frame among them, the heap of few threads keeps blocks: new
pages for each take a push a twentieth of its processor time."""
_FEW = 4
"""Processors."""


def return_large_blocks() -> None:
    """Let glibc give every large block back as soon as it is freed.

    It does so until the first is freed, and then keeps them for each thread, as ever more of its heap: 90 MB
    in a push on 16 processors. Smaller blocks are of one heap for all threads: one thread allocates most of
    them and another frees them, and the interpreter's lock admits one at a time. For a command's own process
    only, since a program that imports Lamella may be quicker with blocks that stay.
    """
    if sys.platform != "linux":
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none, and gives them back anyway
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_ON_FEW if (os.cpu_count() or 1) <= _FEW else _LARGE)
        mallopt(_M_ARENA_MAX, 1)
