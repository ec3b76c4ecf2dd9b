"""What the environment's own Python says of itself: asked once, in a process that sees nothing of the user's settings.

Where it is built for another machine, its files are asked instead (`foreign`).
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamella.builder.errors import NotAnEnvironment
from lamella.builder.prefix import foreign
from lamella.layers.oci.documents import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.builder.files.hash_cache import Hashes
    from lamella.builder.prefix.locate import Kind, Located

_SECONDS = 60
_OLDEST = (3, 8)

_QUESTION = """
import importlib.util, json, os, site, sys, sysconfig
get = sysconfig.get_config_var
with open(site.__file__) as source:
    debian = "dist-packages" in source.read()
base = getattr(sys, "_base_executable", None) or sys.executable
own = os.path.join(sys.base_prefix, "bin", "python%d.%d" % sys.version_info[:2])
# Before 3.11, a venv of copies says that its copy is the base interpreter.
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
    "certificates": certificates,
}))
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """An interpreter's own words. Paths are absolute, and of the base interpreter where a venv borrows it."""

    version: str
    implementation: str
    cache_tag: str
    magic: str
    base_prefix: str
    base_executable: str
    stdlib: str
    libraries: tuple[str, ...]
    """Folders where its libpython may be."""
    include: str
    debian: bool
    """Whether its site module looks for packages in dist-packages."""
    certificates: tuple[str, ...]
    """The file and the folder in which its OpenSSL looks for certificate authorities; empty where nobody can say."""
    platform: Platform
    compiler: str
    """The Python that compiles for it: itself, or one of its version that runs here; empty where none does."""

    @property
    def short(self) -> str:
        """`3.12` for 3.12.4."""
        return ".".join(self.version.split(".")[:2])


@dataclass(frozen=True, slots=True)
class Prefix:
    """An environment's folder, and what its interpreter says of itself."""

    path: str
    """Absolute, as the user named it, not resolved."""
    executable: str
    kind: Kind
    configuration: Mapping[str, str]
    """The settings in `pyvenv.cfg`; empty for any other kind."""
    python: Facts

    @property
    def stdlib(self) -> str:
        """Where the standard library belongs, relative to the prefix: `lib/python3.12`."""
        return f"lib/python{self.python.short}"

    @property
    def site_packages(self) -> str:
        """Where packages belong, relative to the prefix: `lib/python3.12/site-packages`."""
        return f"{self.stdlib}/site-packages"

    @property
    def is_foreign(self) -> bool:
        """Whether the interpreter is built for another machine and can't run here."""
        return self.python.compiler != self.executable


def prefix_of(located: Located, hashes: Hashes) -> Prefix:
    """The located environment with its interpreter's answers; errors as for `ask`."""
    python = ask(located.executable, hashes)
    return Prefix(located.prefix, located.executable, located.kind, located.configuration, python)


def ask(executable: str, hashes: Hashes) -> Facts:
    """What `executable` says of itself; remembered for as long as its file stays as it is.

    `NotAnEnvironment` where it does not run, or is of a kind that Lamella does not capture.
    """
    resolved = os.path.realpath(executable)
    try:
        seen = os.stat(resolved)
    except OSError as error:
        raise NotAnEnvironment(
            f"{executable} leads to {resolved}, which is gone: make the environment anew with an interpreter that exists"
        ) from error
    # The spelling belongs to the question: a venv's configuration stands beside its link, not beside what it points to.
    if foreign.is_foreign(resolved):
        facts = _facts(executable, foreign.answer(executable), Platform("linux", foreign.architecture(resolved)), "")
        return replace(facts, compiler=foreign.companion(facts.short))
    question = json.dumps([executable, resolved, _QUESTION])
    answer = hashes.answer(question, seen)
    if answer is None:
        answer = _run(executable)
        hashes.remember_answer(question, seen, answer)
    return _facts(executable, answer, Platform.here(), executable)


def recorded_platform(prefix: Prefix, wanted: Platform | None) -> Platform:
    """The platform to record: the interpreter's, or `wanted`, which may add a variant. `NotAnEnvironment` for another."""
    here = prefix.python.platform
    if wanted and (wanted.os, wanted.architecture) != (here.os, here.architecture):
        raise NotAnEnvironment(
            f"{prefix.path} is for {here}, not for {wanted}: name the folder of an environment that was "
            "installed for it, or leave --platform out"
        )
    return wanted or here


def _run(executable: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "__PYVENV"))}
    try:
        done = subprocess.run(
            # -I: neither the user's site nor PYTHON* variables; -S: none of the environment's .pth files runs.
            [executable, "-I", "-S", "-c", _QUESTION],
            capture_output=True,
            timeout=_SECONDS,
            env=environment,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise NotAnEnvironment(f"{executable} did not answer in {_SECONDS} seconds: see what keeps it") from error
    except OSError as error:
        raise NotAnEnvironment(f"{executable} does not run: {error.strerror or error}") from error
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise NotAnEnvironment(f"{executable} does not run as Python 3: {reason[0][:200]}")
    return done.stdout.decode(errors="surrogateescape")


def _facts(executable: str, answer: str, platform: Platform, compiler: str) -> Facts:
    try:
        said = json.loads(answer)
        version, implementation = str(said["version"]), str(said["implementation"])
    except (ValueError, KeyError, TypeError) as error:
        raise NotAnEnvironment(f"{executable} does not answer as Python does: is it one?") from error
    kinds = {"debug": "a debug build", "free_threaded": "a free-threaded build", "musl": "a build for musl"}
    kind = next((kind for name, kind in kinds.items() if said[name]), "")
    if implementation != "cpython":
        kind = implementation
    if kind or tuple(map(int, version.split(".")[:2])) < _OLDEST:
        raise NotAnEnvironment(
            f"{executable} is {kind or 'Python ' + version}, which Lamella can't capture yet: "
            f"use an ordinary CPython {'.'.join(map(str, _OLDEST))} or newer"
        )
    return Facts(
        version,
        implementation,
        said["cache_tag"],
        said["magic"],
        said["base_prefix"],
        said["base_executable"],
        said["stdlib"],
        tuple(dict.fromkeys(said["libraries"])),
        said["include"],
        said["debian"],
        tuple(said["certificates"]),
        platform,
        compiler,
    )
