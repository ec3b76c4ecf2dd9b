"""Find the files that editable installs of every style import from this disk, and where they belong when shipped.

An installer's `.pth` file or finder module in site-packages names folders of this machine, which no node
has. So their code ships to the place where an ordinary install would put it, and the pointers do not.

Sources: PEP 660; site.py for `.pth`; setuptools' `editable_wheel`, the `editables` library (hatchling, pdm),
scikit-build-core's and meson-python's redirecting loaders, setuptools' `develop` for `.egg-link`.
"""

from __future__ import annotations

import ast
import json
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.files.small_file import read_small
from lamella.builder.local.project_files import too_broad
from lamella.builder.prefix.places import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_MOST = 4 << 20
"""Maximum bytes to read of a generated module: scikit-build-core lists every module of the project in it."""


_SYSTEM = ("/usr/", "/etc/", "/lib", "/bin", "/dev", "/proc", "/sys")


class Pointer(NamedTuple):
    """A file in site-packages that points to code in another folder of this disk."""

    file: str
    """Its name in site-packages."""
    companions: tuple[str, ...]
    """Names of the modules in site-packages that it imports."""
    roots: tuple[Place, ...]
    """Code that it makes importable, and its place: a folder at site-packages itself is an import root."""
    gone: tuple[str, ...]
    """Missing folders that it names."""
    rest: tuple[str, ...] = ()
    """Its lines that a node needs too: folders of the environment, code to run."""
    unknown: tuple[str, ...] = ()
    """Folders and files of this disk that its code names in an unknown way."""


def pointers(folder: str, site: str, inside: Callable[[str], bool]) -> list[Pointer]:
    """Find the pointers among the files of `folder`, which belongs at `site`, in the order in which Python reads them.

    `inside` checks whether a path is in the environment: a `.pth` file that names such a folder stays.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    found = [_pth(folder, name, site, inside) for name in names if name.endswith(".pth")]
    links = [_link(folder, name, site, inside) for name in names]
    return [pointer for pointer in (*found, *links) if pointer is not None]


def _link(folder: str, name: str, site: str, inside: Callable[[str], bool]) -> Pointer | None:
    """Read a link to a project's package or module, as `flit install --symlink` makes it."""
    path = os.path.join(folder, name)
    if not os.path.islink(path):
        return None
    real = os.path.realpath(path)
    # Any installed package can leave a link here: one to something that is not code is not an install.
    module = name.endswith(".py") and os.path.basename(real) == name and os.path.isfile(real)
    if inside(real) or not (module or os.path.isfile(os.path.join(real, "__init__.py"))):
        return None
    return Pointer(name, (), (Place(real, f"{site}/{name}"),), ())


def egg_links(folder: str) -> list[tuple[str, str]]:
    """Name of each legacy `.egg-link` file, and the folder of its project's egg-info."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".egg-link"))
    except OSError:
        return []
    found = []
    for name in names:
        first = _text(os.path.join(folder, name)).strip().partition("\n")[0].strip()
        if first:
            found.append((name, os.path.normpath(os.path.join(folder, first))))
    return found


def _pth(folder: str, name: str, site: str, inside: Callable[[str], bool]) -> Pointer | None:
    roots: list[Place] = []
    gone: list[str] = []
    companions: list[str] = []
    rest: list[str] = []
    unknown: list[str] = []
    for line in _text(os.path.join(folder, name)).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith(("import ", "import\t")):
            found = [(module, _finder(os.path.join(folder, f"{module}.py"), site)) for module in _imported(line)]
            modules = [(module, places) for module, places in found if places]
            if not modules:
                rest.append(line)
                code = [line.strip(), *(_text(os.path.join(folder, f"{module}.py")) for module in _imported(line))]
                unknown += [path for text in code for path in _named(text) if not inside(path)]
            companions += [module for module, _ in modules]
            roots += [place for _, places in modules for place in places]
            continue
        path = os.path.normpath(os.path.join(folder, line.rstrip()))
        if inside(path):
            rest.append(line)
        elif os.path.exists(path):
            roots.append(Place(path, site))
        else:
            gone.append(path)
    here = tuple(place for place in roots if os.path.exists(place.source) and not inside(place.source))
    missing = tuple(place.source for place in roots if not os.path.exists(place.source))
    if not (here or missing or gone or unknown):
        return None
    return Pointer(name, tuple(companions), here, (*gone, *missing), tuple(rest), tuple(dict.fromkeys(unknown)))


def _named(code: str) -> Iterator[str]:
    """Existing folders and files with code, outside those of the system, whose absolute paths are in `code`."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("/"):
            path = os.path.normpath(node.value)
            code_there = os.path.isdir(path) or (path.endswith((".py", ".so")) and os.path.isfile(path))
            if code_there and not path.startswith(_SYSTEM) and not too_broad(path):
                yield path


def _imported(line: str) -> Iterator[str]:
    """Modules in the import line of a `.pth` file."""
    try:
        tree = ast.parse(line.strip())
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if "." not in alias.name)


def _finder(path: str, site: str) -> list[Place]:
    """Places in the generated module at `path`; empty if it is not a finder, or missing."""
    try:
        tree = ast.parse(_text(path))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return []
    found: list[Place] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "MAPPING" for target in targets):
                found += _modules(_literal(node.value), site)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            values = [_literal(argument) for argument in node.args]
            if called == "map_module" and len(values) == 2:
                found += _modules({values[0]: values[1]}, site)
            elif called == "install" and values and isinstance(values[0], dict):
                found += _modules(values[0], site)
            elif called == "MesonpyMetaFinder":
                # The build folder's position among the arguments differs between versions of meson-python.
                found += [place for value in values if isinstance(value, str) for place in _meson(value, site)]
    return found


def _modules(mapping: object, site: str) -> list[Place]:
    """Places of a mapping from module names to files or folders; a package's `__init__` stands for its folder.

    A part of a package can be elsewhere: setuptools' `package-dir`. Each entry is covered, by its package's folder
    or by a place of its own.
    """
    found: dict[str, Place] = {}
    if not isinstance(mapping, dict):
        return []
    for module, path in sorted((str(key), value) for key, value in mapping.items() if isinstance(value, str)):
        below = module.replace(".", "/")
        source = os.path.normpath(path)
        if re.fullmatch(r"__init__\.\w+", os.path.basename(source)):
            source = os.path.dirname(source)
        if not os.path.isdir(source):
            source = next((each for each in (source, *_with_suffix(source)) if os.path.isfile(each)), source)
            # The file of a module may have another name; its suffix names the Python that it is built for.
            below += "".join(os.path.basename(source).partition(".")[1:])
        if not any(_covers(package, below, source) for package in found.items()):
            found[below] = Place(source, f"{site}/{below}")
    return list(found.values())


def _covers(package: tuple[str, Place], below: str, source: str) -> bool:
    """Whether the folder of `package` has `source` where the module `below` belongs."""
    above, place = package
    return below.startswith(above + "/") and source == place.source + below[len(above) :]


def _with_suffix(source: str) -> Iterable[str]:
    """setuptools names a module's file without its suffix."""
    folder, base = os.path.split(source)
    try:
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.partition(".")[0] == base]
    except OSError:
        return []


def _meson(build: str, site: str) -> list[Place]:
    """Files that meson would install, by its own plan; empty if the build folder is missing."""
    try:
        plan = json.loads(_text(os.path.join(build, "meson-info", "intro-install_plan.json")))
        files = {source: target["destination"] for section in plan.values() for source, target in section.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    found = []
    for source, destination in sorted(files.items()):
        root, _, rest = str(destination).partition("/")
        if root in {"{py_purelib}", "{py_platlib}"} and rest:
            found.append(Place(source, f"{site}/{rest}"))
    return found


def _literal(node: ast.expr | None) -> object:
    try:
        return ast.literal_eval(node) if node is not None else None
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _text(path: str) -> str:
    """Read a small text file as site.py does, with or without a byte order mark; empty if unreadable."""
    try:
        return read_small(path, _MOST).decode("utf-8-sig", "surrogateescape")
    except OSError:
        return ""
