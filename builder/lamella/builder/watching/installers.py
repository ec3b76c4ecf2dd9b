"""Signs that an installer is at work, so that a half-installed package is not pushed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.builder.files.small_file import READ
from lamella.layers.hardening.file_locks import try_lock

if TYPE_CHECKING:
    from lamella.builder.environment import Environment

# pip writes a package's files, then its metadata, and RECORD last; conda its record in conda-meta. Until then, files
# belong to no package, recorded ones are missing, and requirements are unmet.
_KINDS = frozenset({"missing", "record", "unowned", "requires", "inconsistent", "duplicate", "owners"})


def half_installed(environment: Environment, before: Environment | None) -> str:
    """Return a sign that an installer is at work on the environment, or an empty string. `before`: the last one pushed."""
    if is_locked(environment.prefix):
        return f"{environment.prefix}: uv is installing"
    if before is None:
        return ""
    old = {(each.kind, each.subject) for each in before.findings}
    for each in environment.findings:
        if each.kind in _KINDS and each.severity != "note" and (each.kind, each.subject) not in old:
            return each.message
    renamed = {each.path for each in before.left_out}
    for left_out in environment.left_out:
        if "/~" in left_out.path and left_out.path not in renamed:
            return f"{left_out.path}: pip has not removed it yet"
    return ""


def is_locked(prefix: str) -> bool:
    """Whether uv holds the lock of the environment at `prefix`, as it does while it installs."""
    try:
        file = os.open(os.path.join(prefix, ".lock"), READ | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return False
    try:
        return not try_lock(file, shared=True)
    except OSError:
        return False
    finally:
        os.close(file)
