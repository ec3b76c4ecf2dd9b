"""The command, from one file."""

import os
import sys

if sys.version_info < (3, 10):  # noqa: UP036 # an older Python reads this file before it is refused
    sys.exit("lamella-node.pyz: requires Python 3.10 or newer; this is %d.%d" % sys.version_info[:2])  # noqa: UP031 # no f-strings in Python 2


def damage(archive):  # type: ignore[no-untyped-def] # no annotations in Python 2
    """Return the name of the first file in `archive` whose checksum is wrong; None without one."""
    import zipfile
    import zlib

    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.testzip()
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError):
        return archive


try:
    from lamella.cli.main import main

    sys.exit(main())
except (SystemExit, KeyboardInterrupt):
    raise
except BaseException:
    # zipimport compares no checksums: a damaged module fails anywhere, by any error.
    if damage(os.path.dirname(os.path.abspath(__file__))):  # type: ignore[no-untyped-call] # as above
        sys.exit("lamella-node.pyz: damaged; copy it here again, and compare its sha256 with the original's")
    raise
