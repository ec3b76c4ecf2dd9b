"""`bin/activate.csh` of an exported environment, for csh and tcsh."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.layers.exporting.template import filled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# csh has no functions, and doesn't say which file it reads, but has it open. In a sourced file `exit` ends the shell.
_ACTIVATE = """\
# Source this from csh or tcsh: source @PREFIX@/bin/activate.csh

if ( $?_lamella_prefix ) then
    if ( -r "$_lamella_prefix/.lamella/deactivate.csh" ) source "$_lamella_prefix/.lamella/deactivate.csh"
endif
set _lamella_here = "`readlink /proc/$$/fd/* | sed -n 's,/bin/activate[.]csh.*,,p' | tail -n 1`"
if ( "$_lamella_here" == "" ) set _lamella_here = '@PREFIX@'
if ( ! -r "$_lamella_here/.lamella/prefix" ) then
    sh -c 'echo "lamella: no environment is at $1: run bin/conda-unpack in the folder to which it was unpacked" >&2' sh "$_lamella_here"
    unset _lamella_here
else
    sh -c 'test "$(cat "$1/.lamella/prefix")" = "$1" && test ! -e "$1/.lamella/moving"' sh "$_lamella_here" || \\
        "$_lamella_here/bin/lamella-unpack" || \\
        sh -c 'echo "lamella: scripts of $1 name another folder" >&2' sh "$_lamella_here"
    set _lamella_prefix = "$_lamella_here"
    unset _lamella_here
    set _lamella_path = "$PATH"
@SAVE@
    setenv PATH "${_lamella_prefix}/bin:${PATH}"
    unsetenv PYTHONHOME
@SET@
    alias deactivate 'source "$_lamella_prefix/.lamella/deactivate.csh"'
@SOURCE@
    rehash
endif
"""
_DEACTIVATE = """\
# Sourced by `deactivate`.
@SOURCE@
@RESTORE@
setenv PATH "$_lamella_path"
unset _lamella_path _lamella_prefix
unalias deactivate
rehash
"""
# A pattern that matches nothing is an error, unless nonomatch is set.
_SOURCE = """\
set _lamella_had_nonomatch = $?nonomatch
set nonomatch
foreach _lamella_script ( "$_lamella_prefix"/etc/conda/@FOLDER@/*.csh )
    if ( -r "$_lamella_script" ) source "$_lamella_script"
end
if ( ! $_lamella_had_nonomatch ) unset nonomatch
unset _lamella_script _lamella_had_nonomatch"""


def scripts(prefix: str, places: Sequence[str], variables: Mapping[str, str]) -> tuple[str, str]:
    """Return `activate.csh` and the script for `deactivate`.

    `places` are variables that name the prefix, `variables` others with their values.
    """
    names = ["PYTHONHOME", *places, *sorted(variables)]
    lines = [f'    setenv {name} "$_lamella_prefix"' for name in places]
    lines += [f"    setenv {name} {_quoted(value)}" for name, value in sorted(variables.items())]
    saved = [f'    if ( $?{name} ) then\n        set _lamella_was_{name} = "${name}"\n    endif' for name in names]
    activate = {
        "SAVE": "\n".join(saved),
        "SET": "\n".join(lines),
        "SOURCE": filled(_SOURCE, {"FOLDER": "activate.d"}),
        "PREFIX": prefix,
    }
    deactivate = {
        "SOURCE": filled(_SOURCE, {"FOLDER": "deactivate.d"}),
        "RESTORE": "\n".join(map(_restored, names)),
    }
    return filled(_ACTIVATE, activate), filled(_DEACTIVATE, deactivate)


def _restored(name: str) -> str:
    return (
        f"if ( $?_lamella_was_{name} ) then\n"
        f'    setenv {name} "$_lamella_was_{name}"\n'
        f"    unset _lamella_was_{name}\n"
        f"else\n    unsetenv {name}\nendif"
    )


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''").replace("!", "\\!").replace("\n", "\\\n") + "'"
