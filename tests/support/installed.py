"""Real Python environments, made by real installers from small wheels that need no network."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import site
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Literal

from support.engines import missing
from support.once import once
from support.small_python import small_python

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

By = Literal["pip", "uv"]


def base_python() -> str:
    """The interpreter that the tests' own environment was made from."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def is_debians() -> bool:
    """Whether that interpreter is Debian's, which reads dist-packages outside of a virtual environment."""
    with open(site.__file__, encoding="utf-8") as source:
        return "dist-packages" in source.read()


_shared: list[Path] = []


def share_python(shared: Path) -> None:
    """Let `venv` make environments of a small interpreter from here on, which lies in `shared`."""
    _shared[:] = [shared]


def venv_python() -> str:
    """A small copy of `base_python()`, made once a run.

    `base_python()` itself outside a run of tests, and if it is the system's.
    """
    python = base_python()
    if not _shared or python.startswith("/usr/bin/"):
        return python
    prefix = _shared[0] / "small-python" / "prefix"
    with once(prefix) as mine:
        if mine:
            shutil.rmtree(prefix, ignore_errors=True)
            small_python(python, prefix)
    return str(prefix / "bin" / os.path.basename(python))


def uv() -> str:
    """The uv that is installed beside the tests."""
    try:
        from uv import find_uv_bin
    except ImportError:
        missing("uv is not here: install the project with its test extra")
    return os.fsdecode(find_uv_bin())


def wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    files: Mapping[str, str | bytes] | None = None,
    *,
    requires: Sequence[str] = (),
    entry_points: str = "",
    metadata: str = "",
    tag: str = "py3-none-any",
) -> Path:
    """Writes a wheel of `files` (paths as in the wheel, `{data}` for its data folder) to `folder`."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    headers = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    headers += [f"Requires-Dist: {requirement}" for requirement in requires]
    content: dict[str, str | bytes] = {path.format(data=f"{stem}.data"): text for path, text in (files or {}).items()}
    content[f"{info}/METADATA"] = "\n".join(filter(None, (*headers, metadata))) + "\n"
    pure = "true" if tag.endswith("-none-any") else "false"
    content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: {pure}\nTag: {tag}\n"
    if entry_points:
        content[f"{info}/entry_points.txt"] = entry_points
    record = []
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in content.items():
            data = text.encode() if isinstance(text, str) else text
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            quoted = f'"{inside}"' if "," in inside else inside
            record.append(f"{quoted},sha256={digest},{len(data)}")
            archive.writestr(inside, data)
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]) + "\n")
    return path


def venv(folder: Path, *, by: By = "uv", python: str = "", options: Sequence[str] = ()) -> Path:
    """A virtual environment without pip at `folder`, made by venv or by uv.

    `python`: another interpreter than `venv_python()`.
    """
    interpreter = python or venv_python()
    if by == "uv":
        _run([uv(), "venv", "--quiet", "--offline", "--python", interpreter, *options, str(folder)])
    else:
        _run([interpreter, "-m", "venv", "--without-pip", *options, str(folder)])
    return folder


def install(prefix: Path, *what: Path | str, by: By = "uv", options: Sequence[str] = ()) -> Path:
    """Installs wheels or projects into the environment at `prefix`, without their requirements."""
    names = [str(each) for each in what]
    python = str(prefix / "bin" / "python")
    if by == "uv":
        command = [uv(), "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python]
    else:
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
        command.append("--disable-pip-version-check")
    _run([*command, *options, *names])
    return prefix


def _run(command: Sequence[str]) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    done = subprocess.run(command, capture_output=True, text=True, env=clean, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"


def two_versions(folder: Path, name: str) -> dict[str, Path]:
    """Two environments that differ in the version of one package, which its module knows, by that version."""
    found = {}
    for version in ("1.0", "2.0"):
        package = wheel(folder, name, version, {f"{name}/__init__.py": f"__version__ = '{version}'\n"})
        found[version] = install(venv(folder / version), package)
    return found
