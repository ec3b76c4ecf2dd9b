from __future__ import annotations

import pytest

from lamella.builder.content import scripts

POINT = ("tool.cli", "main.run")
PYTHON = "#!/srv/env/bin/python3.11\n"
# As the installers wrote them for `tool = tool.cli:main.run`.
PIP_24 = """# -*- coding: utf-8 -*-
import re
import sys
from tool.cli import main
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit(main.run())
"""
WRITTEN = {
    "pip 9": """
# -*- coding: utf-8 -*-
import re
import sys

from tool.cli import main

if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])
    sys.exit(main.run())
""",
    "pip 24, flit, distlib 0.3": PIP_24,
    "pip 25": """import sys
from tool.cli import main
if __name__ == '__main__':
    if sys.argv[0].endswith('.exe'):
        sys.argv[0] = sys.argv[0][:-4]
    sys.exit(main.run())
""",
    "pip 26": """import sys
from tool.cli import main
if __name__ == '__main__':
    sys.argv[0] = sys.argv[0].removesuffix('.exe')
    sys.exit(main.run())
""",
    "virtualenv": """# -*- coding: utf-8 -*-
import re
import sys
if __name__ == '__main__':
    from tool.cli import main
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit(main.run())
""",
    "installer, for poetry and pdm": PIP_24.replace("'", '"'),
    "poetry, editable": """import sys
from tool.cli import main

if __name__ == '__main__':
    sys.exit(main.run())
""",
    "uv": """# -*- coding: utf-8 -*-
import sys
from tool.cli import main
if __name__ == "__main__":
    if sys.argv[0].endswith("-script.pyw"):
        sys.argv[0] = sys.argv[0][:-11]
    elif sys.argv[0].endswith(".exe"):
        sys.argv[0] = sys.argv[0][:-4]
    sys.exit(main.run())
""",
    "setuptools 40, egg": """# EASY-INSTALL-ENTRY-SCRIPT: 'tool==1.0','console_scripts','tool'
__requires__ = 'tool==1.0'
import re
import sys
from pkg_resources import load_entry_point

if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])
    sys.exit(
        load_entry_point('tool==1.0', 'console_scripts', 'tool')()
    )
""",
    "setuptools 68, egg": """# EASY-INSTALL-ENTRY-SCRIPT: 'tool','console_scripts','tool'
import re
import sys

# for compatibility with easy_install; see #2198
__requires__ = 'tool'

try:
    from importlib.metadata import distribution
except ImportError:
    try:
        from importlib_metadata import distribution
    except ImportError:
        from pkg_resources import load_entry_point


def importlib_load_entry_point(spec, group, name):
    dist_name, _, _ = spec.partition('==')
    matches = (
        entry_point
        for entry_point in distribution(dist_name).entry_points
        if entry_point.group == group and entry_point.name == name
    )
    return next(matches).load()


globals().setdefault('load_entry_point', importlib_load_entry_point)


if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])
    sys.exit(load_entry_point('tool', 'console_scripts', 'tool')())
""",
}


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in WRITTEN.items()])
def test_every_installers_script_is_recognised(body: str) -> None:
    assert scripts.installers_own((PYTHON + body).encode(), "tool", POINT)


@pytest.mark.parametrize(
    "first",
    [
        "#!/bin/sh\n'''exec' \"/srv/my env/bin/python3\" \"$0\" \"$@\"\n' '''\n",
        "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python3' \"$0\" \"$@\"\n' '''\n",
    ],
    ids=["of a long path", "of uv --relocatable"],
)
def test_an_installers_script_is_recognised_behind_any_of_their_first_lines(first: str) -> None:
    assert scripts.installers_own((first + WRITTEN["uv"]).encode(), "tool", POINT)


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in WRITTEN.items()])
@pytest.mark.parametrize(
    ("old", "new"),
    [("import sys\n", "import sys\nsys.path.insert(0, '/x')\n"), ("sys.exit(", "print(")],
    ids=["a line more", "a line changed"],
)
def test_a_changed_script_is_its_users_own(body: str, old: str, new: str) -> None:
    assert old in body
    assert not scripts.installers_own((PYTHON + body.replace(old, new)).encode(), "tool", POINT)


@pytest.mark.parametrize("flag", ["-E", "-I", "-s", "-sE", "-X utf8"])
def test_a_script_with_flags_for_python_is_its_users_own(flag: str) -> None:
    first = PYTHON.replace("\n", f" {flag}\n")
    assert not scripts.installers_own((first + PIP_24).encode(), "tool", POINT)


@pytest.mark.parametrize("point", [("tool.cli", "main.other"), ("tool", "main.run")])
def test_a_script_of_another_entry_point_is_not_taken_for_this_one_s(point: tuple[str, str]) -> None:
    assert not scripts.installers_own((PYTHON + PIP_24).encode(), "tool", point)
    assert not scripts.installers_own((PYTHON + WRITTEN["setuptools 68, egg"]).encode(), "other", POINT)
