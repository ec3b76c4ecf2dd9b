"""What an environment's Python finds: modules, distributions, entry points. Run by that Python, not imported.

`probe.py` prints the names of all modules and programs as JSON; `probe.py NAMES` (such a file) answers: for each
module its file relative to the environment with the sha256 of its bytes, for each distribution its version,
requirements and entry points, for each program the output of --version, or of --help. PROBE_BIN has the folders of
programs, if there is more than the interpreter's own.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

HERE = os.path.dirname(os.path.abspath(__file__))
SUFFIX = re.compile(r"\.(py|pyc|so|abi3\.so|cpython-[\w-]+\.so)$")


def find(name: str, path: list[str] | None) -> ModuleSpec | None:
    """The module's spec, as an import asks each finder for it, without importing its parents."""
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except Exception:
            continue
        if spec is not None:
            return spec
    return None


def names_in(folder: str) -> set[str]:
    """Names of modules and folders in an entry of a search path."""
    try:
        listed = os.listdir(folder)
    except OSError:
        return set()
    return {SUFFIX.sub("", name) for name in listed if SUFFIX.sub("", name).isidentifier()} - {
        "__pycache__",
        "__init__",
    }


def tops() -> set[str]:
    """Top-level names of every entry of sys.path, and those that distributions name."""
    found: set[str] = set()
    for entry in sys.path:
        if os.path.abspath(entry or ".") != HERE:
            found |= names_in(entry)
    for each in importlib.metadata.distributions():
        found |= set((each.read_text("top_level.txt") or "").split())
        found.add((each.metadata["Name"] or "").replace("-", "_"))
        found |= {point.value.partition(":")[0].partition(".")[0] for point in each.entry_points}
    return {name for name in found if name.isidentifier()}


def modules(wanted: list[str]) -> dict[str, ModuleSpec]:
    """Every module by name, from the tops down."""
    found: dict[str, ModuleSpec] = {}
    pending: list[tuple[str, list[str] | None]] = [
        (name, None) for name in sorted(tops() | {n for n in wanted if "." not in n})
    ]
    deep = [name for name in wanted if "." in name]
    while pending:
        name, path = pending.pop()
        spec = find(name, path)
        if spec is None or name in found:
            continue
        found[name] = spec
        if spec.submodule_search_locations is not None:
            inside = list(spec.submodule_search_locations)
            below = {each for folder in inside for each in names_in(folder)}
            below |= {each[len(name) + 1 :] for each in deep if each.rpartition(".")[0] == name}
            pending += [(f"{name}.{each}", inside) for each in sorted(below)]
    return found


def place(spec: ModuleSpec) -> list[str]:
    """File relative to the environment (or `elsewhere`), and the hash of its bytes; a namespace has neither."""
    origin = spec.origin
    if origin in (None, "built-in", "frozen", "namespace"):
        return [str(origin), ""]
    roots = [(os.path.dirname(os.__file__), f"lib/python{sys.version_info[0]}.{sys.version_info[1]}")]
    roots += [(each, "") for each in (sys.prefix, os.path.realpath(sys.prefix))]
    roots = sorted(roots, key=lambda root: -len(root[0]))
    where = next(
        (f"{path}/{origin[len(root) + 1 :]}".lstrip("/") for root, path in roots if origin.startswith(root + "/")),
        "elsewhere",
    )
    digest = ""
    if os.path.isfile(origin):
        with open(origin, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
    return [where, digest]


def distributions() -> dict[str, list[object]]:
    """Name to version, requirements and entry points, of the first distribution of each name, as importlib finds it."""
    found: dict[str, list[object]] = {}
    for each in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", each.metadata["Name"] or "").lower()
        points = sorted([point.group, point.name, point.value] for point in each.entry_points)
        found.setdefault(name, [each.version, sorted(each.requires or []), points])
    return found


def bins() -> list[str]:
    return os.environ.get("PROBE_BIN", os.path.dirname(sys.executable)).split(os.pathsep)


def program(name: str) -> list[object] | None:
    """Exit status and output of a program; None if it is missing."""
    path = next((f"{folder}/{name}" for folder in bins() if os.access(f"{folder}/{name}", os.X_OK)), None)
    said: list[object] = []
    for option in ("--version", "--help") if path else ():
        done = subprocess.run(
            [str(path), option],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
            env={**os.environ, "PATH": os.pathsep.join([*bins(), "/usr/bin", "/bin"])},
        )
        output = done.stdout + done.stderr
        for folder in sorted({*bins(), sys.prefix, os.path.realpath(sys.prefix)}, key=len, reverse=True):
            output = output.replace(folder, "@")
        said = [done.returncode, output]
        if not done.returncode:
            break
    return said if path else None


def main() -> None:
    warnings.simplefilter("ignore")
    if len(sys.argv) == 1:
        names = sorted({name for folder in bins() if os.path.isdir(folder) for name in os.listdir(folder)})
        print(json.dumps({"modules": sorted(modules([])), "programs": names}))
        return
    with open(sys.argv[1], encoding="utf-8") as file:
        wanted = json.load(file)
    found = {name: place(spec) for name, spec in modules(wanted["modules"]).items()}
    programs = {name: said for name in wanted["programs"] if (said := program(name)) is not None}
    print(json.dumps({"modules": found, "distributions": distributions(), "programs": programs}))


if __name__ == "__main__":
    main()
