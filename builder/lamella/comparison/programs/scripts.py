"""Programs that are scripts of Python: where they are, and the interpreter that runs each."""

from __future__ import annotations

import os
import re
import shutil
import sys

_ENV = "/usr/bin/env "


def script(name: str) -> str:
    """Return the path of the program `name`: on PATH, or beside this interpreter; an empty string for neither."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    return shutil.which(name) or (beside if os.access(beside, os.X_OK) else "")


def interpreter(path: str) -> str:
    """Return the Python that runs the script at `path`; this one if the script does not name it."""
    with open(path, "rb") as file:
        # An interpreter with a long path is on the second line, in the form that pip writes.
        start = file.read(1024).decode("utf-8", "replace")
    found = re.search(r"/[^\"'\n]*python[\d.]*", start)
    if found and found[0].startswith(_ENV):
        return shutil.which(found[0].removeprefix(_ENV)) or sys.executable
    return found[0] if found else sys.executable
