"""Write console scripts and shebangs in one canonical form, independent of the installer.

pip, old pip, uv, poetry, installer and conda each write different text for an entry point, which the
wheel's entry_points.txt defines. Source: PyPA's entry points specification, and distlib's script writer.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from lamella.builder.content.script_templates import written_for

if TYPE_CHECKING:
    from collections.abc import Iterable

_OBJECT = re.compile(r"\s*(?P<module>[\w.]+)\s*:\s*(?P<attr>[\w.]+)\s*(?:\[[^\]]*\]\s*)?(?:#.*)?")
# `#!/path/python -E`, and the form for a path that is too long or has spaces:
#     #!/bin/sh
#     '''exec' "/path with spaces/python" "$0" "$@"
#     ' '''
# mamba and rattler end it with ` #'''` on the second line.
_DIRECT = re.compile(rb"#![ \t]*(?P<python>/[^\s]*/(?:python|pypy)[0-9.]*[a-z]*)(?P<args>[ \t][^\r\n]*)?\r?\n")
_TRAMPOLINE = re.compile(
    rb"#![ \t]*/bin/sh[ \t]*\r?\n'''exec'[ \t]+(?P<quote>[\"']?)(?P<python>/[^\r\n]*?/(?:python|pypy)[0-9.]*[a-z]*)(?P=quote)"
    rb"(?P<args>[ \t][^\r\n]*?)?[ \t]+\"\$0\"[ \t]+\"\$@\"[ \t]*(?:\r?\n'[ ]'''|#''')[ \t]*\r?\n"
)
# uv's, in a venv made with --relocatable.
_RELATIVE = re.compile(
    rb"#!/bin/sh\r?\n'''exec' \"\$\(dirname -- \"\$\(realpath -- \"\$0\"\)\"\)\"/'(?:python|pypy)[0-9.]*[a-z]*'"
    rb"(?P<args>[ \t][^\r\n]*?)?[ \t]+\"\$0\"[ \t]+\"\$@\"[ \t]*\r?\n'[ ]'''[ \t]*\r?\n"
)
# Of a prefix that is too long for a first line, conda and rattler leave only this in a conda package's script.
_BY_ENV = re.compile(rb"#![ \t]*/usr/bin/env[ \t]+(?:-S[ \t]+)?python[0-9.]*(?P<args>[ \t][^\r\n]*)?\r?\n")
# conda, mamba and rattler write one template, each with different white space.
_BY_CONDA = re.compile(
    rb"(?:#[^\n]*coding[^\n]*\n)?\s*import re\s+import sys\s+from (?P<module>[\w.]+) import (?P<name>\w+)\s+"
    rb"if __name__ == ['\"]__main__['\"]:\s+sys\.argv\[0\] = re\.sub\([^\n]*\)\s+sys\.exit\((?P<attr>[\w.]+)\(\)\)\s*"
)
LONGEST_SHEBANG = 127
"""Maximum bytes of a first line on every Linux since 2.6 (BINPRM_BUF_SIZE is 128 up to 5.0)."""
LOOK = 1024
"""Number of bytes that show whether a file begins with a shebang for Python."""


def entry_points(content: bytes) -> dict[str, tuple[str, str]]:
    """Scripts of an entry_points.txt: name -> (module, attribute). Invalid lines are skipped."""
    import configparser  # in a function: most pushes build no layer

    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    # Names are case-sensitive; configparser's default is lower case.
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        parser.read_string(content.decode("utf-8-sig", "replace"))
    except configparser.Error:
        return {}
    found = {}
    for section in ("console_scripts", "gui_scripts"):
        for name, value in parser.items(section) if parser.has_section(section) else ():
            match = _OBJECT.fullmatch(value)
            if match and "/" not in name:
                found[name] = match["module"], match["attr"]
    return found


def written_by_conda(content: bytes) -> tuple[str, str] | None:
    """Module and attribute of a script that conda made for an entry point of a noarch package, or None."""
    first = _first(content, conda=True)
    match = _BY_CONDA.fullmatch(content, first.end()) if first else None
    if not match or match["attr"].partition(b".")[0] != match["name"]:
        return None
    return match["module"].decode(), match["attr"].decode()


def installers_own(content: bytes, name: str, point: tuple[str, str]) -> bool:
    """Whether an installer wrote the script `name` for an entry point, without flags for Python, and it is unchanged."""
    first = _first(content)
    return bool(first and not (first["args"] or b"").strip() and written_for(content[first.end() :], name, point))


def script(module: str, attribute: str, image_prefix: str) -> bytes:
    """Return the canonical text of a console script."""
    imported = attribute.partition(".")[0]
    return (
        shebang(image_prefix)
        + (
            f"import sys\nfrom {module} import {imported}\nif __name__ == '__main__':\n    sys.exit({attribute}())\n"
        ).encode()
    )


def shebang(image_prefix: str, args: bytes = b"") -> bytes:
    """Return the first line (or the three of a trampoline) of a Python script in an environment at `image_prefix`."""
    python = f"{image_prefix}/bin/python".encode("utf-8", "surrogateescape")
    line = b"#!" + python + (b" " + args if args else b"") + b"\n"
    if len(line) <= LONGEST_SHEBANG and not re.search(rb"\s", python):
        return line
    # For the shell this is the quoted word 'exec'; for Python, a string across the lines.
    return b"#!/bin/sh\n'''exec' \"" + python + b'"' + (b" " + args if args else b"") + b" \"$0\" \"$@\"\n' '''\n"


def names_python(head: bytes, *, conda: bool = False) -> bool:
    """Whether a file that begins so is a script for a Python at an absolute path.

    `#!/usr/bin/env python` counts in a script of a `conda` package alone, whose path may have been too long.
    """
    return _first(head, conda=conda) is not None


def named_python(head: bytes) -> bytes:
    """The absolute path of the Python that the first line names; empty for a relative one, or another program."""
    match = _DIRECT.match(head) or _TRAMPOLINE.match(head)
    return match["python"] if match else b""


def without_flags(content: bytes) -> bytes:
    """Remove the flags for Python from the first line of `content`, as it was before pipx added `-E`."""
    match = _DIRECT.match(content)
    return content[: match.end("python")] + content[match.end("args") :] if match and match["args"] else content


def with_shebang(content: bytes, image_prefix: str, *, conda: bool = False) -> bytes:
    """Replace the first line of `content` by one that names the environment's Python.

    Installers write `python`, `python3` or `python3.12`, after the name that they were called by.
    """
    match = _first(content, conda=conda)
    if not match:
        return content
    args = (match["args"] or b"").strip()
    return shebang(image_prefix, args) + content[match.end() :]


def with_direct_line(content: bytes, prefixes: Iterable[bytes], image_prefix: str) -> bytes:
    """Write a trampoline for a Python below one of `prefixes` as one line, if that can name it below `image_prefix`.

    `layers/relocation` writes trampolines into any text, such as CPython's own lib/python3.12/config-*/python-config.py.
    """
    match = _TRAMPOLINE.match(content)
    prefix = next((each for each in prefixes if match and match["python"].startswith(each + b"/")), None)
    if not match or prefix is None:
        return content
    line = b" ".join(filter(None, (b"#!" + match["python"], (match["args"] or b"").strip()))) + b"\n"
    target = os.fsencode(image_prefix)
    fits = len(line) - len(prefix) + len(target) <= LONGEST_SHEBANG and not re.search(rb"\s", target)
    return line + content[match.end() :] if fits else content


def _first(content: bytes, *, conda: bool = False) -> re.Match[bytes] | None:
    """Match of the line, or the three of a trampoline, that names a Python; None for any other script."""
    found = _DIRECT.match(content) or _TRAMPOLINE.match(content) or _RELATIVE.match(content)
    return found or (_BY_ENV.match(content) if conda else None)
