"""What an exported environment holds beyond its layers, so that it works wherever it is unpacked.

`bin/activate` for shells, `bin/lamella-unpack` to move the environment to where it is (the first activation does it,
too), and the module that does it, run by the environment's own Python: what conda-pack's archives do. It can be moved
again at any time.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lamella.layers import relocate

if TYPE_CHECKING:
    from collections.abc import Mapping

LEFT_OUT = (relocate.MOVING, relocate.LOCK)
"""What no layer may bring: a move that would be finished where the environment is unpacked."""

_UNPACK = """\
#!/bin/sh
'''exec' "$(dirname -- "$0")/python" -I -B "$0" "$@"
' '''
import os
import sys

here = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(here, ".lamella"))
import relocate

if len(sys.argv) > 2 or sys.argv[1:] in (["-h"], ["--help"]):
    sys.exit("usage: lamella-unpack [PREFIX]: makes this environment one for PREFIX, by default for where it is")
try:
    relocate.move(here, sys.argv[1] if sys.argv[1:] else here)
except (relocate.CannotRelocate, OSError) as error:
    sys.exit("lamella-unpack: {}".format(error))
"""

_ACTIVATE = """\
# Source this from a shell: . @PREFIX@/bin/activate

if [ -n "${BASH_SOURCE:-}" ]; then
    _lamella_prefix=$BASH_SOURCE
elif [ -n "${ZSH_VERSION:-}" ]; then
    eval '_lamella_prefix=${(%):-%x}'
else
    # Other shells don't say which file they read.
    _lamella_prefix='@PREFIX@/bin/activate'
fi
_lamella_prefix=$(CDPATH= cd -P -- "$(dirname -- "$_lamella_prefix")/.." && pwd -P)

# Another environment's is a function; a program of that name (pyenv has one) is nobody's to call.
if [ "$(command -v deactivate 2> /dev/null)" = deactivate ]; then
    deactivate
fi

if [ "$(cat "$_lamella_prefix/.lamella/prefix")" != "$_lamella_prefix" ] || [ -e "$_lamella_prefix/.lamella/moving" ]; then
    "$_lamella_prefix/bin/lamella-unpack" || echo "lamella: scripts of $_lamella_prefix name another folder" >&2
fi

deactivate () {
    for _lamella_script in "$_lamella_prefix"/etc/conda/deactivate.d/*.sh; do
        if [ -r "$_lamella_script" ]; then . "$_lamella_script"; fi
    done
    PATH=$_lamella_path
    export PATH
    if [ -n "${_lamella_home:-}" ]; then PYTHONHOME=$_lamella_home; export PYTHONHOME; fi
    unset @SET@ _lamella_path _lamella_home _lamella_prefix _lamella_script
    unset -f deactivate
    hash -r 2> /dev/null || true
}

_lamella_path=$PATH
_lamella_home=${PYTHONHOME:-}
PATH=$_lamella_prefix/bin:$PATH
export PATH
unset PYTHONHOME
@VARIABLES@
for _lamella_script in "$_lamella_prefix"/etc/conda/activate.d/*.sh; do
    if [ -r "$_lamella_script" ]; then . "$_lamella_script"; fi
done
hash -r 2> /dev/null || true
"""


def files(prefix: str, variables: Mapping[str, str], *, conda: bool) -> dict[str, tuple[bytes, int]]:
    """The files, as content and mode by path, of an environment whose files name `prefix`.

    `variables` are those that activation sets beside the usual ones; `conda` says which are usual.
    """
    return {
        "bin/activate": (_activate(prefix, variables, conda=conda).encode(), 0o644),
        "bin/lamella-unpack": (_UNPACK.encode(), 0o755),
        relocate.PREFIX_FILE: (f"{prefix}\n".encode(), 0o644),
        ".lamella/relocate.py": (_module(), 0o644),
        f"{relocate.LISTS}/lamella-export.json": (_list(prefix), 0o644),
    }


def _activate(prefix: str, variables: Mapping[str, str], *, conda: bool) -> str:
    usual = ["CONDA_PREFIX", "CONDA_DEFAULT_ENV"] if conda else ["VIRTUAL_ENV"]
    lines = [f"export {name}=$_lamella_prefix" for name in usual]
    for name, value in sorted(variables.items()):
        quoted = value.replace("'", "'\\''")
        lines.append(f"export {name}='{quoted}'")
    text = _ACTIVATE.replace("@VARIABLES@", "\n".join(lines)).replace("@SET@", " ".join([*usual, *sorted(variables)]))
    return text.replace("@PREFIX@", prefix)


def _module() -> bytes:
    # As it is installed here; `relocate` imports nothing but the standard library for this.
    loader = relocate.__spec__.loader if relocate.__spec__ else None
    source = loader.get_source(relocate.__name__) if loader and hasattr(loader, "get_source") else None
    if source is None:
        raise AssertionError("lamella.layers.relocate is installed without its source")
    return str(source).encode()


def _list(prefix: str) -> bytes:
    listed = [{"path": path, "kind": "text"} for path in (relocate.PREFIX_FILE, "bin/activate")]
    return json.dumps({"prefix": prefix, "files": listed}, sort_keys=True).encode() + b"\n"
