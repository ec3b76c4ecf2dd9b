"""Read the facts of an interpreter for another machine from its files, since it cannot run here.

conda, pixi and uv install for other platforms (`--platform linux-aarch64`, `--python-platform`): such a
prefix is an ordinary environment, except that nothing in it runs here.
"""

from __future__ import annotations

import ast
import glob
import importlib.util
import json
import mmap
import os
import re
import shutil
import subprocess
import sys

from lamella.builder.errors import NotAnEnvironment
from lamella.builder.files import elf
from lamella.builder.files.small_file import read_small, read_text
from lamella.builder.prefix.systems import System, system_of


def architecture(executable: str) -> str:
    """OCI architecture of `executable`; empty if it is not ELF, such as a wrapper script."""
    return elf.machine_of(_head(executable))


def is_foreign(executable: str, here: System | None = None) -> bool:
    """Whether `executable` is for another machine than `here`. A 64-bit machine runs 32-bit programs."""
    here = here or System.here()
    found = system_of(executable, here)
    if found.name != here.name:
        return True
    return found != here and (found.architecture, here.architecture) not in (("386", "amd64"), ("arm", "arm64"))


def _head(executable: str) -> bytes:
    try:
        head = read_small(executable, 64)
    except OSError:
        return b""
    return head if head.startswith(elf.MAGIC) else b""


def answer(executable: str, python: str = "") -> str:
    """Answer of `executable` to `interpreter.ask`'s question, from its files, and from `python`, which compiles for it.

    Raises `NotAnEnvironment` if they are insufficient.
    """
    real = os.path.realpath(executable)
    base = os.path.dirname(os.path.dirname(real))
    stdlib = _stdlib(executable, base)
    short = os.path.basename(stdlib).removeprefix("python")
    built = _built_with(stdlib)
    return json.dumps(
        {
            "version": _version(executable, base, short),
            "implementation": "cpython",
            "cache_tag": "cpython-" + short.replace(".", ""),
            "magic": _magic(python or companion(short)),
            "base_prefix": base,
            "base_executable": real,
            "stdlib": stdlib,
            "libraries": [os.path.join(base, "lib")],
            "include": os.path.join(base, "include", f"python{short}"),
            "debug": bool(built.get("Py_DEBUG")),
            "free_threaded": bool(built.get("Py_GIL_DISABLED")),
            "musl": "musl" in str(built.get("SOABI")),
            "debian": _is_debians(stdlib),
            "platlibdir": "lib",
            "certificates": [],
        }
    )


def companion(short: str) -> str:
    """A Python `short`, such as 3.12, that runs here, since byte code is portable. Empty without one."""
    if short == ".".join(map(str, sys.version_info[:2])) and sys.implementation.name == "cpython":
        return sys.executable
    for name in (shutil.which(f"python{short}"), f"/usr/bin/python{short}"):
        if name and _output_of(name, "import sys; print(*sys.version_info[:2], sep='.')") == short:
            return name
    return ""


def _stdlib(executable: str, base: str) -> str:
    # conda's lib/python3.1 is a link to the real folder.
    found = [
        os.path.dirname(path)
        for path in glob.glob(os.path.join(glob.escape(base), "lib", "python3.*", "os.py"))
        if not os.path.islink(os.path.dirname(path))
    ]
    named = os.path.join(base, "lib", os.path.basename(os.path.realpath(executable)))
    if named in found or len(found) == 1:
        return named if named in found else found[0]
    raise NotAnEnvironment(
        f"{executable}: built for {architecture(executable)}, and its version is unknown; {base} must have one "
        f"lib/python3.*/os.py, but has {len(found)}"
    )


def header_version(header: str) -> str:
    """Version in a `patchlevel.h`, such as 3.12.4; empty without one."""
    try:
        found = re.search(r'^#define\s+PY_VERSION\s+"(\d+\.\d+\.\d+)', read_text(header, 1 << 16), re.MULTILINE)
    except OSError:
        return ""
    return found[1] if found else ""


def own_version(*binaries: str) -> str:
    """Version in the bytes of an interpreter's executable or library, such as 3.12.4; empty if none has it.

    Source: CPython, Python/getversion.c: PY_VERSION is a string of its own.
    """
    for path in binaries:
        try:
            with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
                found = re.search(rb"\0(3\.\d{1,2}\.\d{1,2})(?:(?:a|b|rc)\d+)?\+?\0", image)
                if found:
                    return found[1].decode()
        except (OSError, ValueError):
            continue
    return ""


def _version(executable: str, base: str, short: str) -> str:
    header = os.path.join(base, "include", f"python{short}", "patchlevel.h")
    library = os.path.join(base, "lib", f"libpython{short}.so.1.0")
    if found := header_version(header) or own_version(library, executable):
        return found
    for record in sorted(glob.glob(os.path.join(glob.escape(base), "conda-meta", f"python-{short}.*.json"))):
        recorded = re.match(r"python-(\d+\.\d+\.\d+)", os.path.basename(record))
        if recorded:
            return recorded[1]
    raise NotAnEnvironment(
        f"{executable}: built for {architecture(executable)}, and its version is unknown; no such file: {header}"
    )


def _is_debians(stdlib: str) -> bool:
    """Whether its site module looks for packages in dist-packages."""
    try:
        return "dist-packages" in read_text(os.path.join(stdlib, "site.py"))
    except OSError:
        return False


def _built_with(stdlib: str) -> dict[str, object]:
    """Variables of its build. Source: sysconfig, `_init_posix`."""
    for path in sorted(glob.glob(os.path.join(glob.escape(stdlib), "_sysconfigdata_*.py"))):
        try:
            body = ast.parse(read_text(path)).body
            for statement in body:
                if isinstance(statement, ast.Assign):
                    value = ast.literal_eval(statement.value)
                    if isinstance(value, dict):
                        return value
        except (OSError, ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return {}


def _magic(python: str) -> str:
    """Byte code's magic number of `python`, 8 hex digits; empty without one."""
    if python == sys.executable:
        return importlib.util.MAGIC_NUMBER.hex()
    return _output_of(python, "import importlib.util; print(importlib.util.MAGIC_NUMBER.hex())") if python else ""


def _output_of(python: str, question: str) -> str:
    try:
        done = subprocess.run(
            [python, "-I", "-S", "-B", "-c", question], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if not done.returncode else ""
