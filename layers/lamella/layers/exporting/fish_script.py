"""`bin/activate.fish` of an exported environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.layers.exporting.template import filled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SCRIPT = """\
# Source this from fish: source @PREFIX@/bin/activate.fish

function _lamella_source
    # As conda does: scripts for other shells set nothing here.
    for _lamella_script in $_lamella_prefix/etc/conda/$argv[1]/*.fish
        if test -r $_lamella_script
            source $_lamella_script
        end
    end
end

function _lamella_activate
    set -l here (realpath -- $argv[1] 2> /dev/null | string replace -r '/bin/activate\\.fish$' '')
    if test -z "$here"
        set here '@PREFIX@'
    end
    if not test -r $here/.lamella/prefix
        echo "lamella: no environment is at $here: run bin/conda-unpack in the folder to which it was unpacked" >&2
        return 1
    end
    if functions -q deactivate
        deactivate
    end
    if test (cat $here/.lamella/prefix) != $here; or test -e $here/.lamella/moving
        $here/bin/lamella-unpack; or echo "lamella: scripts of $here name another folder" >&2
    end
    set -g _lamella_prefix $here
    set -g _lamella_path $PATH
    for name in PYTHONHOME @NAMES@
        if set -q $name
            set -g _lamella_was_$name $$name
        end
    end
    set -gx PATH $here/bin $PATH
    set -e PYTHONHOME
@SET@

    function deactivate
        _lamella_source deactivate.d
        for name in PYTHONHOME @NAMES@
            set -l was _lamella_was_$name
            if set -q $was
                set -gx $name $$was
                set -e $was
            else
                set -e $name
            end
        end
        set -gx PATH $_lamella_path
        set -e _lamella_path
        set -e _lamella_prefix
        functions -e deactivate _lamella_source
    end
    _lamella_source activate.d
end

_lamella_activate (status filename)
set -l _lamella_status $status
functions -e _lamella_activate
test $_lamella_status -eq 0
"""


def script(prefix: str, places: Sequence[str], variables: Mapping[str, str]) -> str:
    """Return the script. `places` are variables that name the prefix, `variables` others with their values."""
    lines = [f"    set -gx {name} $here" for name in places]
    lines += [f"    set -gx {name} {_quoted(value)}" for name, value in sorted(variables.items())]
    names = " ".join([*places, *sorted(variables)])
    return filled(_SCRIPT, {"NAMES": names, "SET": "\n".join(lines), "PREFIX": prefix})


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
