"""What an exported environment holds beyond its layers, so that it works wherever it is unpacked.

`bin/activate` for shells, `bin/lamella-unpack` to move the environment to where it is (the first activation does it,
too), and the module that does it, run by the environment's own Python: what conda-pack's archives do. It can be moved
again at any time.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from lamella.layers.mounting import relocate

if TYPE_CHECKING:
    from collections.abc import Mapping

LEFT_OUT = (relocate.MOVING, relocate.LOCK)
"""What no layer may bring: a move that would be finished where the environment is unpacked."""

_UNPACK = """\
#!/bin/sh
'''exec' "$(dirname -- "$(readlink -f -- "$0")")/python" -I -B "$0" "$@"
' '''
import os
import sys

here = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(here, ".lamella"))
import relocate

if len(sys.argv) > 2 or sys.argv[1:] in (["-h"], ["--help"]):
    sys.exit("usage: lamella-unpack [PREFIX]: makes this environment one for PREFIX, by default for where it is")
try:
    relocate.move(here, os.path.abspath(sys.argv[1]) if sys.argv[1:] else here)
except relocate.CannotRelocate as error:
    sys.exit("lamella-unpack: {}".format(error))
except OSError as error:
    sys.exit("lamella-unpack: {} can't be changed: {}".format(here, error.strerror or error))
"""

_ACTIVATE = """\
# Source this from bash, zsh, dash or another POSIX shell: . @PREFIX@/bin/activate

if [ -n "${BASH_SOURCE:-}" ]; then
    _lamella_here=$BASH_SOURCE
elif [ -n "${ZSH_VERSION:-}" ]; then
    eval '_lamella_here=${(%):-%x}'
else
    # Other shells don't say which file they read, but have it open; `read` is a part of the shell, so that it tells which.
    _lamella_here='@PREFIX@/bin/activate'
    read -r _lamella_shell _lamella_rest 2> /dev/null < /proc/self/stat || _lamella_shell=self
    for _lamella_file in "/proc/$_lamella_shell/fd"/*; do
        _lamella_file=$(readlink -- "$_lamella_file") || continue
        # Another process that moves the environment has just replaced the file that this shell still reads.
        _lamella_file=${_lamella_file%" (deleted)"}
        case $_lamella_file in */bin/activate)
            if [ -e "${_lamella_file%/bin/activate}/.lamella/prefix" ]; then _lamella_here=$_lamella_file; fi ;;
        esac
    done
    unset _lamella_shell _lamella_rest _lamella_file
fi
_lamella_here=$(readlink -f -- "$_lamella_here" || :)
_lamella_here=${_lamella_here%/bin/activate}
if [ -z "$_lamella_here" ]; then _lamella_here='@PREFIX@'; fi

if [ ! -r "$_lamella_here/.lamella/prefix" ]; then
    echo "lamella: no environment is at $_lamella_here: run bin/lamella-unpack in the folder to which it was unpacked" >&2
    unset _lamella_here
    return 1
fi

# Another environment's is a function. A program of that name, such as pyenv's, is not called.
if [ "$(command -v deactivate 2> /dev/null)" = deactivate ]; then
    deactivate
fi

if [ "$(cat "$_lamella_here/.lamella/prefix")" != "$_lamella_here" ] || [ -e "$_lamella_here/.lamella/moving" ]; then
    "$_lamella_here/bin/lamella-unpack" || echo "lamella: scripts of $_lamella_here name another folder" >&2
fi

# What the environment's own file of this name does not unset before it is needed: an older one calls it `_lamella_prefix`.
_lamella_prefix=$_lamella_here
unset _lamella_here

_lamella_source () {
    # zsh ends a script at a pattern that matches nothing.
    if [ -n "${ZSH_VERSION:-}" ]; then setopt localoptions nonomatch; fi
    for _lamella_script in "$_lamella_prefix/etc/conda/$1"/*.sh; do
        if [ -r "$_lamella_script" ]; then . "$_lamella_script"; fi
    done
}

deactivate () {
    _lamella_source deactivate.d
@RESTORE@
    PATH=$_lamella_path
    export PATH
    unset _lamella_path _lamella_prefix _lamella_script
    unset -f deactivate _lamella_source
    hash -r 2> /dev/null || true
}

_lamella_path=$PATH
@SAVE@
PATH=$_lamella_prefix/bin:$PATH
export PATH
unset PYTHONHOME
@SET@
_lamella_source activate.d
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
    values = dict.fromkeys(usual, "$_lamella_prefix")
    values |= {name: "'" + value.replace("'", "'\\''") + "'" for name, value in sorted(variables.items())}
    # One assignment a line, exported after: older versions of dash split what `export` is given at blanks.
    parts = {
        "PREFIX": [prefix],
        "SAVE": [
            f"_lamella_had_{name}=${{{name}+yes}} _lamella_was_{name}=${{{name}-}}" for name in ["PYTHONHOME", *values]
        ],
        "SET": [f"{name}={value}\nexport {name}" for name, value in values.items()],
        "RESTORE": [_restored(name) for name in ["PYTHONHOME", *values]],
    }
    return re.sub("@([A-Z]+)@", lambda found: "\n".join(parts[found[1]]), _ACTIVATE)


def _restored(name: str) -> str:
    return (
        f'    if [ -n "$_lamella_had_{name}" ]; then {name}=$_lamella_was_{name}; export {name}; else unset {name}; fi\n'
        f"    unset _lamella_had_{name} _lamella_was_{name}"
    )


def _module() -> bytes:
    # As it is installed here; `relocate` imports nothing but the standard library for this.
    loader = relocate.__spec__.loader if relocate.__spec__ else None
    source = loader.get_source(relocate.__name__) if loader and hasattr(loader, "get_source") else None
    if source is None:
        raise AssertionError("lamella.layers.mounting.relocate is installed without its source")
    return str(source).encode()


def _list(prefix: str) -> bytes:
    listed = [{"path": path, "kind": "text"} for path in (relocate.PREFIX_FILE, "bin/activate")]
    return json.dumps({"prefix": prefix, "files": listed}, sort_keys=True).encode() + b"\n"
