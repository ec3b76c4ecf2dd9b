"""A project's wheel, as its own build backend makes it: isolated, from a copy, the same each time.

Sources: PEP 517, PEP 518; reproducible-builds.org for SOURCE_DATE_EPOCH and GCC's `-ffile-prefix-map`.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.builder.errors import BuilderError
from lamella.builder.files.scratch import cannot_write_scratch
from lamella.builder.files.secrets import secret_behind
from lamella.builder.local.ignore import Ignore
from lamella.builder.local.project_files import top_of
from lamella.builder.prefix.places import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

EPOCH = "315619200"
"""1980-01-02T00:00:00Z, which zip can hold in every time zone: some backends write local times."""
_MESSAGE = re.compile(r"(?:[\w.]*(?:Error|Exception|Exit)|error|ERROR|fatal)\b.*:.*")
_COMPILERS = re.compile(r"[^\s:]+:\d+(?::\d+)?: (?:fatal )?error: .*")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_TOOLS = frozenset({"node_modules", "__pycache__", ".tox", ".nox", ".eggs", ".mypy_cache", ".pytest_cache"})
_LEFT = re.compile(r"build/(?:lib|lib\..*|bdist\..*|temp\..*)|(?:src/)?[^/]*\.egg-info|dist")
"""What earlier builds leave in a project's folder: setuptools takes it for a part of the next wheel."""


def wheel(project: str, python: str, folder: str, without: str) -> str:
    """Builds the wheel of `project` for the interpreter `python`; gives its path, in `folder`, which is there and empty.

    `project` is only read, without its folder `without`. Raises `BuilderError` with the last message of a failed build.
    """
    from build import BuildBackendException, BuildException, ProjectBuilder

    copy, isolated = os.path.join(folder, "project"), _Isolated(os.path.join(folder, "isolated"))
    # Debug information names the folders in which a compiler ran.
    flags = f"-ffile-prefix-map={folder}=/build"
    environment = {name: f"{os.environ.get(name, '')} {flags}".strip() for name in ("CFLAGS", "CXXFLAGS")}
    environment["SOURCE_DATE_EPOCH"] = EPOCH
    run = _runner(environment)
    try:
        _copy(project, copy, (without, os.path.realpath(folder)))
        run([python, "-I", "-m", "venv", "--without-pip", isolated.folder])
        builder = ProjectBuilder.from_isolated_env(isolated, copy, runner=run)
        _install(builder.build_system_requires, isolated, run)
        _install(builder.get_requires_for_build("wheel"), isolated, run)
        with warnings.catch_warnings():
            # A backend's advice to the project's authors.
            warnings.simplefilter("ignore")
            return builder.build("wheel", os.path.join(folder, "wheel"))
    except subprocess.CalledProcessError as error:
        message = _message(str(error.output))
    except BuildBackendException as error:
        cause = error.exception
        message = _message(str(cause.output)) if isinstance(cause, subprocess.CalledProcessError) else f"{error}"
    except (BuildException, OSError, shutil.Error) as error:
        message = str(error)
    finally:
        for used in (copy, isolated.folder):
            shutil.rmtree(used, ignore_errors=True)
    # Of a backend's process there is only its message.
    if os.strerror(errno.ENOSPC) in message:
        raise cannot_write_scratch(OSError(errno.ENOSPC, message))
    raise BuilderError(
        f"no wheel of {project} can be built: {message.replace(copy, project).rstrip('.')}; correct the project, or push it as it is on disk, "
        "without --wheels"
    )


@dataclass(frozen=True, slots=True)
class _Isolated:
    """A virtual environment of the interpreter that is pushed: `build`'s own has the interpreter that runs `build`."""

    folder: str

    @property
    def python_executable(self) -> str:
        """Its interpreter."""
        return os.path.join(self.folder, "bin", "python")

    def make_extra_environ(self) -> Mapping[str, str]:
        """What a backend's process gets besides: the tools that were installed for it, first."""
        return {
            "PATH": os.pathsep.join([os.path.join(self.folder, "bin"), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": "",
        }


def _runner(environment: Mapping[str, str]) -> Callable[..., None]:
    def run(command: Sequence[str], cwd: str | None = None, extra_environ: Mapping[str, str] | None = None) -> None:
        subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **environment, **(extra_environ or {})},
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    return run


def _install(requirements: Iterable[str], isolated: _Isolated, run: Callable[..., None]) -> None:
    """Install with pip, or with uv if pip is missing: one of them installed this program."""
    wanted = sorted(requirements)
    if not wanted:
        return
    # A file, since pip heeds no environment markers on its command line.
    listed = os.path.join(isolated.folder, "requirements.txt")
    with open(listed, "w", encoding="utf-8") as file:
        file.write("\n".join(wanted) + "\n")
    beside = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "--python", isolated.python_executable, "install"]
        command += ["--quiet", "--no-input", "--no-compile", "--no-warn-script-location", "--disable-pip-version-check"]
    elif uv := shutil.which("uv", path=beside):
        command = [uv, "pip", "install", "--quiet", "--python", isolated.python_executable]
    else:
        raise BuilderError("building wheels takes pip or uv, and neither is here: install one of them")
    run([*command, "-r", listed])


def _message(output: str) -> str:
    """The last message in what a program wrote; the lines below an exception's first one rarely say what happened."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    messages = [line for line in lines if _COMPILERS.fullmatch(line)][:1]  # its first error brings the others
    messages += [line for line in reversed(lines) if _MESSAGE.fullmatch(line)] + lines[-1:]
    message = messages[0] if messages else "its backend left no message"
    return _CREDENTIALS.sub("", message)


def skips(project: str, without: Collection[str]) -> Callable[[str], bool]:
    """Return a check whether a file or folder of `project` (its path) is left out of a build.

    Left out are environments, leftovers of builds, files named by `.lamellaignore`, links out of the
    repository or to secrets, and the folders `without` (resolved). Parents are taken as parts.
    """
    ignore = Ignore(project, (".lamellaignore",))
    repository = Place(os.path.realpath(top_of(project)), "")

    def skip(source: str) -> bool:
        name = os.path.basename(source)
        if os.path.islink(source):
            # A backend packs the target's bytes: a repository's link may not bring a file of its user.
            real = os.path.realpath(source)
            return not (os.path.exists(real) and repository.holds(real)) or bool(secret_behind(source, real))
        inner, is_folder = os.path.relpath(source, project), os.path.isdir(source)
        if not is_folder and not os.path.isfile(source):
            return True  # a socket or FIFO, for which a copy would wait
        if is_folder and os.path.realpath(source) in without:
            return True
        if is_folder and (name in _TOOLS or _LEFT.fullmatch(inner) or _is_environment(source)):
            return True
        return ignore.ignored(inner, folder=is_folder)

    return skip


def _copy(project: str, copy: str, without: Collection[str]) -> None:
    """A copy with its history, which may say the version; without environments and without what builds leave."""
    skip = skips(project, without)

    def skipped(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if skip(os.path.join(folder, name))]

    shutil.copytree(project, copy, symlinks=True, ignore=skipped)
    for folder, folders, names in os.walk(copy):
        for name in (*folders, *names):
            link = os.path.join(folder, name)
            if os.path.islink(link) and not os.path.exists(link):  # it leads out of the project, relative to it
                original = os.path.realpath(os.path.join(project, os.path.relpath(link, copy)))
                os.unlink(link)
                os.symlink(original, link)


def _is_environment(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "pyvenv.cfg")) or os.path.isdir(os.path.join(folder, "conda-meta"))
