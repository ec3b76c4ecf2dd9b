"""`bin/activate` of an exported environment, for bash, zsh, dash and other POSIX shells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.layers.exporting.template import filled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SCRIPT = """\
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
    echo "lamella: no environment is at $_lamella_here: run bin/conda-unpack in the folder to which it was unpacked" >&2
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


def script(prefix: str, places: Sequence[str], variables: Mapping[str, str]) -> str:
    """Return the script. `places` are variables that name the prefix, `variables` others with their values."""
    values = dict.fromkeys(places, "$_lamella_prefix")
    values |= {name: "'" + value.replace("'", "'\\''") + "'" for name, value in sorted(variables.items())}
    # One assignment a line, exported after: older versions of dash split what `export` is given at blanks.
    parts = {
        "PREFIX": prefix,
        "SAVE": "\n".join(
            f"_lamella_had_{name}=${{{name}+yes}} _lamella_was_{name}=${{{name}-}}" for name in ["PYTHONHOME", *values]
        ),
        "SET": "\n".join(f"{name}={value}\nexport {name}" for name, value in values.items()),
        "RESTORE": "\n".join(_restored(name) for name in ["PYTHONHOME", *values]),
    }
    return filled(_SCRIPT, parts)


def _restored(name: str) -> str:
    return (
        f'    if [ -n "$_lamella_had_{name}" ]; then {name}=$_lamella_was_{name}; export {name}; else unset {name}; fi\n'
        f"    unset _lamella_had_{name} _lamella_was_{name}"
    )
