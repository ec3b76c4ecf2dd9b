"""A kernel that does nothing, remembers everything, and fails where a test wants it to."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field


@dataclass
class RecordingKernel:
    """Implements `lamella.layers.mounting.kernel.Kernel`. `fails` maps a call's name to the errno that it ends with."""

    fails: dict[str, int] = field(default_factory=dict)
    calls: list[tuple[object, ...]] = field(default_factory=list)
    open: set[int] = field(default_factory=set)
    """Descriptors that were given and not closed."""
    mounts: list[str] = field(default_factory=list)
    """Targets, the topmost last."""
    of: list[str] = field(default_factory=list)
    """The source of each of `mounts`."""
    _source: str = ""
    _next: int = 1000

    def fsopen(self, fstype: str) -> int:
        self._record("fsopen", fstype)
        return self._descriptor()

    def fsconfig(self, filesystem: int, key: str, value: str | None = None) -> None:
        assert filesystem in self.open
        self._record("fsconfig", key, value)
        if key == "source":
            self._source = value or ""

    def fscreate(self, filesystem: int) -> None:
        assert filesystem in self.open
        self._record("fscreate")

    def fsmount(self, filesystem: int, attributes: int = 0) -> int:
        assert filesystem in self.open
        self._record("fsmount", attributes)
        return self._descriptor()

    def move_mount(self, mount: int, target: str, *, beneath: bool = False) -> None:
        assert mount in self.open
        self._record("move_mount beneath" if beneath else "move_mount", target)
        at = len(self.mounts) - 1 - self.mounts[::-1].index(target) if beneath else len(self.mounts)
        self.mounts.insert(at, target)
        self.of.insert(at, self._source)

    def mount(self, source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
        self._record("mount", source, target, fstype, flags, data)
        if not flags & 32:
            self.mounts.append(target)
            self.of.append(source)

    def umount(self, target: str, flags: int = 0) -> None:
        self._record("umount", target, flags)
        if target not in self.mounts:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        last = len(self.mounts) - 1 - self.mounts[::-1].index(target)
        del self.mounts[last], self.of[last]

    def unshare(self, flags: int) -> None:
        self._record("unshare", flags)

    def pivot_root(self, new: str, old: str) -> None:
        self._record("pivot_root", new, old)

    def sources(self, target: str) -> list[str]:
        return [source for mount, source in zip(self.mounts, self.of, strict=True) if mount == target]

    def close(self, descriptor: int) -> None:
        self.open.remove(descriptor)

    def names(self) -> list[str]:
        """The names of the calls, in order."""
        return [str(call[0]) for call in self.calls]

    def _record(self, name: str, *arguments: object) -> None:
        self.calls.append((name, *arguments))
        if name in self.fails:
            raise OSError(self.fails[name], os.strerror(self.fails[name]))

    def _descriptor(self) -> int:
        self._next += 1
        self.open.add(self._next)
        return self._next
