"""Files of an export beyond the environment's own, so that it works wherever it is unpacked.

`bin/activate`, `bin/activate.fish` and `bin/activate.csh` for shells; `bin/lamella-unpack`, also named
`bin/conda-unpack`, to move the environment to its place (the first activation does it, too); and the
module that does it, run by the environment's own Python. It can be moved again at any time.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lamella.layers.exporting import csh_script, fish_script, posix_script
from lamella.layers.exporting.members import Member, generated
from lamella.layers.mounting import relocate
from lamella.layers.published.conda_meta import ORIGINS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LEFT_OUT = (relocate.MOVING, relocate.LOCK, ORIGINS)
"""Paths that no layer may bring: a move that would be finished at the place of unpacking. conda's records have the origins."""

_UNPACK = """\
#!/bin/sh
'''exec' "$(dirname -- "$(readlink -f -- "$0")")/python" -I -B "$0" "$@"
' '''
import os
import sys

here = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(here, ".lamella"))
import relocate

name = os.path.basename(sys.argv[0])
given = [word for word in sys.argv[1:] if word not in ("-v", "--verbose")]
if len(given) > 1 or given and given[0].startswith("-"):
    sys.exit("usage: {} [PREFIX]: makes this environment one for PREFIX, by default for its place".format(name))
try:
    relocate.move(here, os.path.abspath(given[0]) if given else here)
except relocate.CannotRelocate as error:
    sys.exit("{}: {}".format(name, error))
except OSError as error:
    sys.exit("{}: {} can't be changed: {}".format(name, here, error.strerror or error))
"""


def members(prefix: str, variables: Mapping[str, str], *, conda: bool) -> list[Member]:
    """Return the files for an environment whose files name `prefix`.

    Activation sets `variables`, and those that conda's or venv's activation sets (`conda`).
    """
    places = ["CONDA_PREFIX", "CONDA_DEFAULT_ENV"] if conda else ["VIRTUAL_ENV"]
    csh = csh_script.scripts(prefix, places, variables)
    scripts = {
        "bin/activate": posix_script.script(prefix, places, variables),
        "bin/activate.fish": fish_script.script(prefix, places, variables),
        "bin/activate.csh": csh[0],
        relocate.PREFIX_FILE: f"{prefix}\n",
    }
    return [
        *(generated(path, text.encode("utf-8", "surrogateescape")) for path, text in scripts.items()),
        generated("bin/lamella-unpack", _UNPACK.encode(), 0o755),
        Member("bin/conda-unpack", 0o777, 0, tuple, "lamella-unpack"),
        generated(".lamella/deactivate.csh", csh[1].encode("utf-8", "surrogateescape")),
        generated(".lamella/relocate.py", _module()),
        generated(f"{relocate.LISTS}/lamella-export.json", _list(prefix, scripts)),
    ]


def _module() -> bytes:
    # As it is installed here; `relocate` imports nothing but the standard library for this.
    loader = relocate.__spec__.loader if relocate.__spec__ else None
    source = loader.get_source(relocate.__name__) if loader and hasattr(loader, "get_source") else None
    if source is None:
        raise AssertionError("lamella.layers.mounting.relocate is installed without its source")
    return str(source).encode()


def _list(prefix: str, paths: Iterable[str]) -> bytes:
    listed = [{"path": path, "kind": "text"} for path in sorted(paths)]
    return json.dumps({"prefix": prefix, "files": listed}, sort_keys=True).encode() + b"\n"
