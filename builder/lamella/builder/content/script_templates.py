"""Recognise a console script that an installer wrote for an entry point and that is unchanged.

The templates below were copied from the installers. A script is compared with them after its quotes,
indentation, empty lines and coding comment are made equal, which is all in which versions of one
installer differ otherwise. A changed script is its user's own text and ships as it is.
"""

from __future__ import annotations

import re

LONGEST = 4096
"""Maximum bytes of a script to compare: the longest template has 1,100."""

_TEMPLATES = (
    # pip from 20.3 to 25.0, distlib, uv before 0.5, pypa/installer (poetry, pdm), flit
    r"""
import re
import sys
from {module} import {name}
if __name__ == "__main__":
    sys.argv[0] = re.sub(r"(-script\.pyw|\.exe)?$", "", sys.argv[0])
    sys.exit({attr}())
""",
    # pip before 20.3, conda, mamba and rattler
    r"""
import re
import sys
from {module} import {name}
if __name__ == "__main__":
    sys.argv[0] = re.sub(r"(-script\.pyw?|\.exe)?$", "", sys.argv[0])
    sys.exit({attr}())
""",
    # distlib from 0.4: virtualenv's pip
    r"""
import re
import sys
if __name__ == "__main__":
    from {module} import {name}
    sys.argv[0] = re.sub(r"(-script\.pyw|\.exe)?$", "", sys.argv[0])
    sys.exit({attr}())
""",
    # pip 25
    """
import sys
from {module} import {name}
if __name__ == "__main__":
    if sys.argv[0].endswith(".exe"):
        sys.argv[0] = sys.argv[0][:-4]
    sys.exit({attr}())
""",
    # pip from 26
    """
import sys
from {module} import {name}
if __name__ == "__main__":
    sys.argv[0] = sys.argv[0].removesuffix(".exe")
    sys.exit({attr}())
""",
    # uv
    """
import sys
from {module} import {name}
if __name__ == "__main__":
    if sys.argv[0].endswith("-script.pyw"):
        sys.argv[0] = sys.argv[0][:-11]
    elif sys.argv[0].endswith(".exe"):
        sys.argv[0] = sys.argv[0][:-4]
    sys.exit({attr}())
""",
    # poetry's editable installs, and the form that ships
    """
import sys
from {module} import {name}
if __name__ == "__main__":
    sys.exit({attr}())
""",
    # setuptools from 47, for an egg or `setup.py develop`
    r"""
# EASY-INSTALL-ENTRY-SCRIPT: "{spec}","{group}","{script}"
import re
import sys
# for compatibility with easy_install; see #2198
__requires__ = "{spec}"
try:
    from importlib.metadata import distribution
except ImportError:
    try:
        from importlib_metadata import distribution
    except ImportError:
        from pkg_resources import load_entry_point
def importlib_load_entry_point(spec, group, name):
    dist_name, _, _ = spec.partition("==")
    matches = (
        entry_point
        for entry_point in distribution(dist_name).entry_points
        if entry_point.group == group and entry_point.name == name
    )
    return next(matches).load()
globals().setdefault("load_entry_point", importlib_load_entry_point)
if __name__ == "__main__":
    sys.argv[0] = re.sub(r"(-script\.pyw?|\.exe)?$", "", sys.argv[0])
    sys.exit(load_entry_point("{spec}", "{group}", "{script}")())
""",
    # setuptools before 47
    r"""
# EASY-INSTALL-ENTRY-SCRIPT: "{spec}","{group}","{script}"
__requires__ = "{spec}"
import re
import sys
from pkg_resources import load_entry_point
if __name__ == "__main__":
    sys.argv[0] = re.sub(r"(-script\.pyw?|\.exe)?$", "", sys.argv[0])
    sys.exit(
        load_entry_point("{spec}", "{group}", "{script}")()
    )
""",
)
_FIELDS = {
    "module": r"[\w.]+",
    "name": r"\w+",
    "attr": r"[\w.]+",
    "spec": r"[\w.\-]+(?:==[\w.+!\-]+)?",
    "group": "console_scripts|gui_scripts",
    "script": r"[^\n\"]+",
}
_CODING = re.compile(r"#[^\n]*coding[^\n]*\n")


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template.strip())
    known: set[str] = set()
    for at in range(1, len(parts), 2):
        field = parts[at]
        parts[at] = f"(?P={field})" if field in known else f"(?P<{field}>{_FIELDS[field]})"
        known.add(field)
    parts[::2] = map(re.escape, parts[::2])
    return re.compile("".join(parts))


_PATTERNS = tuple(map(_pattern, _TEMPLATES))


def written_for(body: bytes, script: str, point: tuple[str, str]) -> bool:
    """Whether an installer wrote `body`, a script without its shebang, for the entry point (module, attribute)."""
    text = _normalised(body)
    for pattern in _PATTERNS:
        match = pattern.fullmatch(text)
        if match:
            fields = match.groupdict()
            if "script" in fields:
                return fields["script"] == script
            return (fields["module"], fields["attr"]) == point and fields["name"] == point[1].partition(".")[0]
    return False


def _normalised(body: bytes) -> str:
    text = body.decode("utf-8", "surrogateescape").replace("\r\n", "\n").replace("'", '"').expandtabs(4)
    coding = _CODING.match(text.lstrip())
    text = text.lstrip()[coding.end() :] if coding else text
    return "\n".join(line.rstrip() for line in text.split("\n") if line.strip())
