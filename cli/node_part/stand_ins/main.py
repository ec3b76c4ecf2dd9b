"""The command, from one file."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 # an older Python reads this file before it is refused
    sys.exit("lamella-node.pyz: requires Python 3.10 or newer; this is %d.%d" % sys.version_info[:2])  # noqa: UP031 # no f-strings in Python 2

from lamella.cli.main import main

sys.exit(main())
