"""Ask the environment's own Python for its facts, once, in a process without the user's settings.

If it is for another machine, they are read from its files; see `foreign`.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamella.builder.errors import NotAnEnvironment
from lamella.builder.prefix import foreign
from lamella.builder.prefix.locate import broken
from lamella.builder.prefix.systems import System, system_of
from lamella.layers.oci.documents import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.builder.files.content_cache import ContentCache
    from lamella.builder.prefix.locate import Kind, LocatedPrefix

_SECONDS = 60
_OLDEST = (3, 8)

_QUESTION = """
import importlib.util, json, os, site, sys, sysconfig
get = sysconfig.get_config_var
with open(site.__file__) as source:
    debian = "dist-packages" in source.read()
base = getattr(sys, "_base_executable", None) or sys.executable
own = os.path.join(sys.base_prefix, "bin", "python%d.%d" % sys.version_info[:2])
# Before 3.11, sys._base_executable in a venv of copies is the copy.
if not os.path.realpath(base).startswith(os.path.realpath(sys.base_prefix) + os.sep) and os.path.exists(own):
    base = own
try:
    import _ssl
    found = _ssl.get_default_verify_paths()
    certificates = [found[1], found[3]]
except ImportError:
    certificates = []
print(json.dumps({
    "version": ".".join(map(str, sys.version_info[:3])),
    "implementation": sys.implementation.name,
    "cache_tag": sys.implementation.cache_tag or "",
    "magic": importlib.util.MAGIC_NUMBER.hex(),
    "base_prefix": sys.base_prefix,
    "base_executable": base,
    "stdlib": os.path.dirname(os.__file__),
    "libraries": [folder for folder in (get("LIBDIR"), os.path.join(sys.base_prefix, "lib")) if folder],
    "include": sysconfig.get_path("include"),
    "debug": bool(get("Py_DEBUG")),
    "free_threaded": bool(get("Py_GIL_DISABLED")),
    "musl": "musl" in (get("SOABI") or ""),
    "debian": debian,
    "platlibdir": getattr(sys, "platlibdir", "lib"),
    "certificates": certificates,
}))
"""


@dataclass(frozen=True, slots=True)
class InterpreterFacts:
    """Facts about an interpreter. Paths are absolute; a venv's are those of its base interpreter."""

    version: str
    implementation: str
    cache_tag: str
    magic: str
    base_prefix: str
    base_executable: str
    stdlib: str
    libraries: tuple[str, ...]
    """Folders that may have its libpython."""
    include: str
    debian: bool
    """Whether its site module looks for packages in dist-packages."""
    platlibdir: str
    """Folder in which it looks for its standard library: `lib`, or `lib64` on Fedora and openSUSE."""
    certificates: tuple[str, ...]
    """File and folder in which its OpenSSL looks for certificate authorities; empty if unknown."""
    platform: Platform
    compiler: str
    """Python that compiles for it: itself, or one of its version that runs here; empty without one."""

    @property
    def short(self) -> str:
        """`3.12` for 3.12.4."""
        return ".".join(self.version.split(".")[:2])


@dataclass(frozen=True, slots=True)
class Prefix:
    """An environment's folder, with the facts about its interpreter."""

    path: str
    """Absolute, as named by the user, not resolved."""
    executable: str
    kind: Kind
    configuration: Mapping[str, str]
    """Settings in `pyvenv.cfg`; empty without one."""
    python: InterpreterFacts

    @property
    def stdlib(self) -> str:
        """Path of the standard library, relative to the prefix: `lib/python3.12`."""
        return f"lib/python{self.python.short}"

    @property
    def site_packages(self) -> str:
        """Path of packages, relative to the prefix: `lib/python3.12/site-packages`."""
        return f"{self.stdlib}/site-packages"

    @property
    def sees_system(self) -> bool:
        """Whether its Python also reads the user's site, and a venv's Python that of its base interpreter."""
        # site.py's own default is `true`.
        return self.configuration.get("include-system-site-packages", "true").lower() == "true"

    @property
    def is_foreign(self) -> bool:
        """Whether the interpreter is for another machine and cannot run here."""
        return self.python.compiler != self.executable


def prefix_of(located: LocatedPrefix, hashes: ContentCache, companion: str | None = None) -> Prefix:
    """Ask the located environment's interpreter; with a `companion`, its files. Raises `NotAnEnvironment`, also for
    an environment of another system than Linux."""
    system = system_of(os.path.realpath(located.executable), System.here())
    if system.name != "linux":
        raise NotAnEnvironment(
            f"{located.prefix}: for {system}, and nodes run Linux; add --platform linux/amd64, or the nodes' platform"
        )
    python = ask(located.executable, hashes, companion)
    return Prefix(located.prefix, located.executable, located.kind, located.configuration, python)


def ask(executable: str, hashes: ContentCache, companion: str | None = None) -> InterpreterFacts:
    """Ask `executable` for its facts, which are remembered until its file changes.

    With a `companion` (see `ScanOptions`), and for another machine, they are read from its files.

    Raises `NotAnEnvironment` if it does not run, or if Lamella does not support it.
    """
    resolved = os.path.realpath(executable)
    try:
        seen = os.stat(resolved)
    except OSError as error:
        raise NotAnEnvironment(broken(executable)) from error
    # The unresolved path is part of the question: a venv's configuration is beside its link, not beside the target.
    if companion is not None or foreign.is_foreign(resolved):
        facts = _facts(
            executable,
            foreign.answer(executable, companion or ""),
            Platform("linux", foreign.architecture(resolved)),
            "",
        )
        return replace(facts, compiler=companion or foreign.companion(facts.short))
    question = json.dumps([executable, resolved, _QUESTION])
    answer = hashes.answer(question, seen)
    if answer is None:
        answer = _run(executable)
        hashes.remember_answer(question, seen, answer)
    return _facts(executable, answer, Platform.here(), executable)


def recorded_platform(prefix: Prefix, wanted: Platform | None) -> Platform:
    """Platform to record: the interpreter's, or `wanted` with a variant. Raises `NotAnEnvironment` for another."""
    here = prefix.python.platform
    if wanted and (wanted.os, wanted.architecture) != (here.os, here.architecture):
        raise NotAnEnvironment(
            f"{prefix.path}: for {here}, not {wanted}; name the folder of an environment for {wanted}, or omit "
            "--platform"
        )
    return wanted or here


def _run(executable: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "__PYVENV"))}
    try:
        done = subprocess.run(
            # -I: no user site, no PYTHON* variables; -S: do not run the environment's .pth files; -B: write no byte code there.
            [executable, "-I", "-S", "-B", "-c", _QUESTION],
            capture_output=True,
            timeout=_SECONDS,
            env=environment,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise NotAnEnvironment(f"{executable}: no answer in {_SECONDS} seconds; run it to see why") from error
    except OSError as error:
        raise NotAnEnvironment(f"{executable}: cannot be run: {error.strerror or error}; reinstall it") from error
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise NotAnEnvironment(f"{executable}: does not run as Python 3: {reason[0][:200]}")
    return done.stdout.decode(errors="surrogateescape")


def _facts(executable: str, answer: str, platform: Platform, compiler: str) -> InterpreterFacts:
    try:
        facts = json.loads(answer)
        version, implementation = str(facts["version"]), str(facts["implementation"])
    except (ValueError, KeyError, TypeError) as error:
        raise NotAnEnvironment(f"{executable}: not a Python interpreter; name the folder of an environment") from error
    kinds = {"debug": "a debug build", "free_threaded": "a free-threaded build", "musl": "a build for musl"}
    kind = next((kind for name, kind in kinds.items() if facts[name]), "")
    if implementation != "cpython":
        kind = implementation
    if kind or tuple(map(int, version.split(".")[:2])) < _OLDEST:
        raise NotAnEnvironment(
            f"{executable}: {kind or 'Python ' + version}, which Lamella does not support; "
            f"use an ordinary CPython {'.'.join(map(str, _OLDEST))} or newer"
        )
    return InterpreterFacts(
        version,
        implementation,
        facts["cache_tag"],
        facts["magic"],
        facts["base_prefix"],
        facts["base_executable"],
        facts["stdlib"],
        tuple(dict.fromkeys(facts["libraries"])),
        facts["include"],
        facts["debian"],
        facts["platlibdir"],
        tuple(facts["certificates"]),
        platform,
        compiler,
    )
