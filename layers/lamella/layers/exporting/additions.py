"""Files of an export beyond the environment's own, so that it works wherever it is unpacked.

`bin/activate`, `bin/activate.fish` and `bin/activate.csh` for shells; `bin/lamella-unpack`, also named
`bin/conda-unpack`, to move the environment to its place (the first activation does it, too); and the
modules that do it, run by the environment's own Python. It can be moved again at any time.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lamella.layers import relocation
from lamella.layers.exporting import csh_script, fish_script, parcel, posix_script
from lamella.layers.exporting.members import Member, generated
from lamella.layers.published.conda_meta import ORIGINS
from lamella.layers.relocation import lists, move, prefixes, rewrite, zip_payload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import ModuleType

    from lamella.layers.exporting.parcel import Parcel

LEFT_OUT = (move.MOVING, move.LOCK, ORIGINS)
"""Paths that no layer may bring: a move that would be finished at the place of unpacking. conda's records have the origins."""

_UNPACK = """\
#!/bin/sh
'''exec' "$(dirname -- "$(readlink -f -- "$0")")/python" -I -B "$0" "$@"
' '''
import os
import sys

here = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(here, ".lamella", "lib"))
from lamella.layers.relocation.move import move
from lamella.layers.relocation.prefixes import CannotRelocate

name = os.path.basename(sys.argv[0])
given = [word for word in sys.argv[1:] if word not in ("-v", "--verbose")]
if len(given) > 1 or given and given[0].startswith("-"):
    sys.exit("usage: {} [PREFIX]: makes this environment one for PREFIX, by default for its place".format(name))
try:
    move(here, os.path.abspath(given[0]) if given else here)
except CannotRelocate as error:
    sys.exit("{}: {}".format(name, error))
except OSError as error:
    sys.exit("{}: {} can't be changed: {}".format(name, here, error.strerror or error))
"""


def members(
    prefix: str,
    variables: Mapping[str, str],
    *,
    conda: bool,
    of_parcel: Parcel | None = None,
    packages: Iterable[tuple[str, str]] = (),
) -> list[Member]:
    """Return the files for an environment whose files name `prefix`.

    Activation sets `variables`, and those that conda's or venv's activation sets (`conda`). A parcel's own files name
    `packages`, by name and version.
    """
    places = ["CONDA_PREFIX", "CONDA_DEFAULT_ENV"] if conda else ["VIRTUAL_ENV"]
    csh = csh_script.scripts(prefix, places, variables)
    scripts = {
        "bin/activate": posix_script.script(prefix, places, variables),
        "bin/activate.fish": fish_script.script(prefix, places, variables),
        "bin/activate.csh": csh[0],
        move.PREFIX_FILE: f"{prefix}\n",
    }
    return [
        *(generated(path, text.encode("utf-8", "surrogateescape")) for path, text in scripts.items()),
        generated("bin/lamella-unpack", _UNPACK.encode(), 0o755),
        Member("bin/conda-unpack", 0o777, 0, tuple, "lamella-unpack"),
        generated(".lamella/deactivate.csh", csh[1].encode("utf-8", "surrogateescape")),
        *_modules(),
        generated(f"{lists.LISTS}/lamella-export.json", _list(prefix, scripts)),
        *(parcel.members(of_parcel, packages) if of_parcel else ()),
    ]


def _modules() -> Iterator[Member]:
    """Yield the room `relocation`, as it is installed here, in a package of its own: an environment may hold a Lamella."""
    library = ".lamella/lib/lamella/layers"
    yield generated(f"{library}/__init__.py", b"")
    for module in (relocation, lists, move, prefixes, rewrite, zip_payload):
        name = "__init__" if module is relocation else module.__name__.rpartition(".")[2]
        yield generated(f"{library}/relocation/{name}.py", _source(module))


def _source(module: ModuleType) -> bytes:
    loader = module.__spec__.loader if module.__spec__ else None
    source = loader.get_source(module.__name__) if loader and hasattr(loader, "get_source") else None
    if source is None:
        raise AssertionError(f"{module.__name__} is installed without its source")
    return str(source).encode()


def _list(prefix: str, paths: Iterable[str]) -> bytes:
    listed = [{"path": path, "kind": "text"} for path in sorted(paths)]
    return json.dumps({"prefix": prefix, "files": listed}, sort_keys=True).encode() + b"\n"
