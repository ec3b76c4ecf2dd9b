"""The machine that a comparison runs on."""

from __future__ import annotations

import contextlib
import os
import platform

from lamella.comparison.result import Machine


def machine(folder: str, load: tuple[float, ...]) -> Machine:
    """Describe this machine, with the file system of `folder`."""
    return Machine(
        system=_system(),
        # Its version alone: what follows names a build, such as -generic.
        kernel=platform.release().partition("-")[0],
        processors=len(os.sched_getaffinity(0)),
        processor=_field("/proc/cpuinfo", "model name") or platform.machine(),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        file_system=_file_system(folder),
        load=load,
    )


def load() -> float:
    """Return the average of one minute."""
    return round(os.getloadavg()[0], 2)


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _field(path: str, name: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return ""


def _file_system(folder: str) -> str:
    """Return the type of the file system that holds `folder`."""
    folder, found = os.path.realpath(folder), ("", "")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split()
            point = fields[4]
            # The last mount at a place hides those before.
            if (folder == point or folder.startswith(f"{point.rstrip('/')}/")) and len(point) >= len(found[0]):
                found = point, fields[fields.index("-") + 1]
    return found[1]
