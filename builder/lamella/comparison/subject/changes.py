"""Changes to a copy of an environment. A changed file is a new inode: other copies share the former one by hard links."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import io
import os
import re
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

from lamella.comparison.errors import ComparisonError
from lamella.comparison.subject.distributions import path_of, record

if TYPE_CHECKING:
    from collections.abc import Collection

    from lamella.comparison.subject.distributions import Distribution


def copy_environment(source: str, target: str, *, linked: bool, without: Collection[str] = ()) -> None:
    """Copy a folder but the names in `without`: as hard links, or with content (shared blocks if the file system can)."""
    sources = [f"{source}/."]
    if without:
        sources = [os.path.join(source, name) for name in sorted(os.listdir(source)) if name not in without]
    done = subprocess.run(
        ["cp", "-a", *(["--link"] if linked else ["--reflink=auto"]), "--", *sources, target],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ComparisonError(f"{source}: not copied to {target}: {done.stderr.strip().splitlines()[-1]}")


def write(path: str, data: bytes) -> None:
    """Replace a file, or make it."""
    mode = os.stat(path).st_mode if os.path.exists(path) else 0o644
    partial = f"{path}.new"
    with open(partial, "wb") as file:
        file.write(data)
    os.chmod(partial, mode)
    os.replace(partial, path)


def move_environment(prefix: str, former: str, path: str) -> None:
    """Write `path` for `former` in the scripts and settings of the virtual environment that was copied to `prefix`."""
    folder = os.path.join(prefix, "bin")
    scripts = [os.path.join(folder, name) for name in os.listdir(folder)] if os.path.isdir(folder) else []
    for script in [*scripts, os.path.join(prefix, "pyvenv.cfg")]:
        if os.path.islink(script) or not os.path.isfile(script):
            continue
        with open(script, "rb") as file:
            data = file.read()
        if b"\0" not in data[:1024] and former.encode() in data:
            write(script, data.replace(former.encode(), path.encode()))


def upgrade(distribution: Distribution, number: int) -> Distribution:
    """Give an installed distribution another version and one changed module, as an upgrade would, and return it.

    Its version gets the local part `compare.NUMBER`; its folder of metadata, RECORD and METADATA follow.
    """
    version = f"{distribution.version.partition('+')[0]}+compare.{number}"
    info = os.path.join(
        distribution.site,
        f"{os.path.basename(distribution.info).removesuffix('.dist-info').rpartition('-')[0]}-{version}.dist-info",
    )
    former, new = os.path.basename(distribution.info), os.path.basename(info)
    rows = record(distribution)
    os.rename(distribution.info, info)
    moved = replace(distribution, version=version, info=info)
    for row in rows:
        if row[0].startswith(f"{former}/"):
            row[0] = f"{new}/{row[0].removeprefix(f'{former}/')}"
    _change(moved, rows, f"{new}/METADATA", lambda data: _versioned(data, version))
    if module := _module(moved, rows):
        _change(moved, rows, module, lambda data: data + f"\n# compare {number}\n".encode())
        _drop_byte_code(path_of(moved, [module]))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write(os.path.join(info, "RECORD"), text.getvalue().encode())
    return moved


def _versioned(metadata: bytes, version: str) -> bytes:
    return re.sub(rb"(?im)^Version:.*$", f"Version: {version}".encode(), metadata, count=1)


def _module(distribution: Distribution, rows: list[list[str]]) -> str:
    """Return the path of the distribution's largest plain module, or an empty string."""
    sizes = {
        row[0]: os.path.getsize(path_of(distribution, row))
        for row in rows
        if row[0].endswith(".py") and not row[0].startswith("..") and os.path.isfile(path_of(distribution, row))
    }
    return max(sizes, key=lambda each: (sizes[each], each), default="")


def _change(distribution: Distribution, rows: list[list[str]], path: str, changed: object) -> None:
    row = next((row for row in rows if row[0] == path), None)
    target = path_of(distribution, [path])
    with open(target, "rb") as file:
        data = changed(file.read())  # type: ignore[operator]
    write(target, data)
    if row is not None:
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        row[1:] = [f"sha256={digest}", str(len(data))]


def _drop_byte_code(module: str) -> None:
    """Remove the module's byte code: an installer would write it anew, and Python checks its time and size."""
    folder, name = os.path.split(module)
    cache = os.path.join(folder, "__pycache__")
    with contextlib.suppress(FileNotFoundError):
        for each in os.listdir(cache):
            if each.startswith(f"{name.removesuffix('.py')}.") and each.endswith(".pyc"):
                os.unlink(os.path.join(cache, each))
