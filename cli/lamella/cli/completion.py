"""Completion scripts for shells, from the parsers by shtab, and the words that only this machine knows.

A script completes verbs, flags and choices by itself. For a reference, an environment or a mount it runs
`lamella completion SHELL --candidates KIND WORD`, which never asks a registry.
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from lamella.cli.parsers import whole_parser
from lamella.cli.verbs import VERBS

if TYPE_CHECKING:
    import shtab

_KINDS = {
    "REFERENCE": "reference",
    "SOURCE": "either",
    "DESTINATION": "reference",
    "BEFORE": "either",
    "AFTER": "either",
    "REPOSITORY": "reference",
    "PREFIX": "environment",
    "TARGET": "mount",
}
"""Kinds of candidates by an argument's metavar."""
_FOLDERS = frozenset({"FOLDER"})
_FILES = frozenset({"FILE", "KEY", "PATH"})

_BASH = """
_lamella_candidates() {
  lamella completion bash --candidates "$1" "$2" 2>/dev/null
}
_lamella_reference() { _lamella_candidates reference "$1"; }
_lamella_environment() { _lamella_candidates environment "$1"; }
_lamella_either() { _lamella_candidates either "$1"; }
_lamella_mount() { _lamella_candidates mount "$1"; }
"""
_BASH_LAST = """
# bash splits words at colons, which references have. To shtab, --flag=value is two words.
_lamella() {
  local -a words=() apart=()
  local at last=-1 current=0 rest=$COMP_LINE word flag=
  for at in "${!COMP_WORDS[@]}"; do
    word=${COMP_WORDS[at]}
    if [[ $last -lt 0 || -z $rest || $rest == [[:space:]]* ]]; then
      last=$((last + 1))
      words[last]=
    fi
    words[last]+=$word
    rest=${rest#"${rest%%[![:space:]]*}"}
    rest=${rest:${#word}}
    [[ $at -eq $COMP_CWORD ]] && current=$last
  done
  local COMP_CWORD=0
  for at in "${!words[@]}"; do
    word=${words[at]}
    if [[ $word == --*=* && " ${apart[*]} " != *" -- "* ]]; then
      apart+=("${word%%=*}")
      [[ $at -eq $current && $COMP_WORDBREAKS != *=* ]] && flag=${word%%=*}=
      word=${word#*=}
    fi
    apart+=("$word")
    [[ $at -eq $current ]] && COMP_CWORD=$((${#apart[@]} - 1))
  done
  local -a COMP_WORDS=("${apart[@]}")
  _shtab_lamella
  word=${apart[COMP_CWORD]}
  local before=
  [[ $word == *:* && $COMP_WORDBREAKS == *:* ]] && before=${word%"${word##*:}"}
  [[ -n $before ]] && flag=
  for at in "${!COMPREPLY[@]}"; do
    [[ ${COMPREPLY[at]} == *[/:] ]] && compopt -o nospace 2>/dev/null
    COMPREPLY[at]=$flag${COMPREPLY[at]#"$before"}
  done
  return 0
}
complete -o bashdefault -F _lamella lamella
"""
_ZSH = """
_lamella_candidates() {
  local -a found
  found=(${(f)"$(lamella completion zsh --candidates $1 "${(Q)PREFIX}" 2>/dev/null)"})
  compadd -S '' -a found
}
_lamella_reference() { _lamella_candidates reference }
_lamella_environment() { _lamella_candidates environment }
_lamella_either() { _lamella_candidates either }
_lamella_mount() { _lamella_candidates mount }
"""
_FISH = """
function _lamella_candidates
  lamella completion fish --candidates $argv[1] (commandline -ct) 2>/dev/null
end
"""
_PREAMBLES = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(shell: str) -> str:
    """Return the completion script of `shell`."""
    import shtab

    parser = whole_parser()
    for each in _verbs(parser):
        for action in each._actions:
            if action.metavar == "VERB":
                action.choices = tuple(VERBS)
            elif completed := _completed(action):
                action.complete = completed  # type: ignore[attr-defined] # where shtab looks for it
    text = shtab.complete(parser, shell=shell, preamble=_PREAMBLES[shell])
    if shell == "zsh":
        # zshcompsys(1), _arguments: with = behind its name, a flag takes its value in the same word, too.
        text = re.sub(r"^( +\S*--[\w-]+)(?=\}?\"?\[.*\]:)", r"\1=", text, flags=re.MULTILINE)
    return f"{text}\n{_BASH_LAST}" if shell == "bash" else text


def _verbs(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    (verbs,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return list(verbs.choices.values())


def _completed(action: argparse.Action) -> shtab.CompleteType | None:
    """Return what shtab completes an argument with, by shell."""
    import shtab

    metavar = str(action.metavar)
    if action.choices or action.nargs == 0:
        return None
    if kind := _KINDS.get(metavar):
        return {"bash": f"_lamella_{kind}", "zsh": f"_lamella_{kind}", "fish": f"(_lamella_candidates {kind})"}
    if metavar in _FOLDERS:
        return shtab.DIRECTORY
    return shtab.FILE if metavar in _FILES else None
