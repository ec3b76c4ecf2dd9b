"""Mounts that were replaced, and that processes may still use: their layers stay until the last of these has ended.

Removing a layer breaks lookups in such a mount: from a working directory, root or open folder in it, or through a mount of
it that remains in another namespace or at a bind mount, as in containers. Open and mapped files keep their bytes. A former
mount is therefore in use while any process or mount namespace refers to its device number, which the kernel does not reuse
before then.

    <store>/holds/former-<key>-<device>    its layers, and the target as a note
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from lamella.layers import mountinfo
from lamella.layers.mounting import claims
from lamella.layers.store import leases

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.layers.mounting.claims import Mounted
    from lamella.layers.oci.documents import Digest
    from lamella.layers.store.store import Store

_PREFIX = "former-"


def keep(store: Store, state: Mounted, digests: Iterable[Digest]) -> None:
    """Hold the layers of the mount that is at the target of `state` now. They are held already."""
    device = os.stat(state.target).st_dev
    note = json.dumps({"target": state.target, "device": device, "namespace": state.namespace})
    leases.hold(store, f"{_PREFIX}{state.key}-{device}", digests, note=note, lasting=False)


def release_unused(store: Store) -> int:
    """End the holds of former mounts without a user; return how many are left."""
    folder = f"{store.path}/holds"
    names = [name for name in os.listdir(folder) if name.startswith(_PREFIX)] if os.path.isdir(folder) else []
    if not names:
        return 0
    used = _devices_in_use() if claims.sees_every_process() else None
    left = 0
    for name in names:
        if _is_used(leases.note(store, name), used):
            left += 1
        else:
            leases.release(store, name)
    return left


def _is_used(note: str | None, used: frozenset[int] | None) -> bool:
    try:
        about = json.loads(note or "")
        target, device, namespace = str(about["target"]), int(about["device"]), str(about["namespace"])
    except (ValueError, KeyError, TypeError):
        return False  # released meanwhile, or torn by a loss of power, which ended every mount
    if claims.is_of_another_boot(namespace):
        return False
    if used is None or device in used:
        return True  # a process that is not visible from here may use it
    with suppress(OSError):
        # Not replaced in the end: after a crash before the swap.
        return namespace == claims.namespace_here() and os.stat(target).st_dev == device
    return False


def _devices_in_use() -> frozenset[int]:
    found: set[int] = set()
    for process in os.listdir("/proc"):
        if process.isdecimal():
            paths = [f"/proc/{process}/cwd", f"/proc/{process}/root"]
            with suppress(OSError):
                paths += [f"/proc/{process}/fd/{number}" for number in os.listdir(f"/proc/{process}/fd")]
            for path in paths:
                with suppress(OSError):  # it has ended, or closed it
                    found.add(os.stat(path).st_dev)
    for mounts in mountinfo.mounts_by_namespace(own=True):
        found |= {os.makedev(*map(int, each.device.split(":"))) for each in mounts}
    return frozenset(found)
