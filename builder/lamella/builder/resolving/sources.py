"""Distributions that were installed from an archive or a repository, and wheels of those that are not wheels yet.

Only pure ones: this machine's compiler builds for this machine.
"""

from __future__ import annotations

import hashlib
import importlib
import lzma
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lamella.builder.cache_folder import cannot_write
from lamella.builder.errors import BuilderError
from lamella.builder.files.scratch import scratch_folder
from lamella.builder.indexes.pages import SDISTS
from lamella.builder.prefix.foreign import companion
from lamella.builder.resolving.file_lock import exclusive
from lamella.builder.resolving.model import Artifact
from lamella.builder.resolving.target_tags import rank, short_version
from lamella.builder.urls import text_without_credentials
from lamella.builder.wheels import build
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from lamella.builder.resolving.model import InstalledDistribution, Target

_GIT = re.compile(r"git\+(?P<url>[^#]+?)@(?P<commit>[0-9a-f]{40,64})(?:#subdirectory=(?P<below>.+))?")
_BELOW = re.compile(r"[^/.\\][^\\]*")
_OF_A_REPOSITORY = frozenset(
    {
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_QUARANTINE_PATH",
        "GIT_COMMON_DIR",
        "GIT_NAMESPACE",
        "GIT_PREFIX",
        "GIT_CONFIG",
        "GIT_GRAFT_FILE",
        "GIT_SHALLOW_FILE",
        "GIT_REPLACE_REF_BASE",
    }
)
"""Variables that git sets for its hooks: with them it would write to the user's repository."""
# 3.10.12 and 3.11.4 are the first with filters; Debian 12 has 3.11.2.
_TARFILE = tarfile if hasattr(tarfile, "data_filter") else importlib.import_module("backports.tarfile")
_DAMAGED = (
    _TARFILE.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    TypeError,
    ValueError,
    RuntimeError,  # an encrypted zip, and a compression that zipfile lacks
)


def is_from_index(each: InstalledDistribution) -> bool:
    """Whether `each` came from an index, as far as its records state."""
    return not each.source


def direct_artifact(each: InstalledDistribution, target: Target) -> Artifact:
    """Artifact for a distribution that was installed from an archive or a repository.

    Raises `BuilderError` for a wheel of another machine and for another version control system.
    """
    url = each.source
    who = f"{escaped(each.name, 100)} {escaped(each.version, 60)}"
    if url.startswith("git+"):
        if not _GIT.fullmatch(url):
            raise BuilderError(f"{who}: {escaped(url, 200)} states no commit; install it from a commit")
    elif not url.startswith(("http://", "https://", "file://")):
        raise BuilderError(f"{who}: cannot be fetched from {escaped(url, 200)}; put its wheel on an index")
    elif filename_in(url).endswith(".whl") and rank(filename_in(url), target) is None:
        raise BuilderError(
            f"{who}: installed from {filename_in(url)}, which is not for {target.platform}; install it from an index, or from "
            f"a wheel for {target.platform}"
        )
    return Artifact("wheel", each.name, each.version, url, each.sha256, 0, "")


def parsed_repository(url: str) -> tuple[str, str, str] | None:
    """URL, commit and subdirectory of a `git+` URL; None for another URL."""
    found = _GIT.fullmatch(url)
    return (found["url"], found["commit"], found["below"] or "") if found else None


def is_repository(artifact: Artifact) -> bool:
    """Whether `artifact` is fetched by git."""
    return artifact.url.startswith("git+")


def is_source(artifact: Artifact) -> bool:
    """Whether a wheel of `artifact` has to be built."""
    return is_repository(artifact) or filename_in(artifact.url).endswith(SDISTS)


def built_wheel(artifact: Artifact, archive: str, target: Target, cache_path: str) -> str:
    """Return the path, in the cache, of the wheel of `artifact`; build it if it is not there yet.

    `archive`: the source distribution; empty for a repository. Raises `BuilderError` if the build fails or the wheel is
    not pure, and `CacheError`.
    """
    short = short_version(target.python)
    folder = os.path.join(cache_path, "downloads", f"built-{_key(artifact, archive)}-{short}")
    try:
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        with exclusive(f"{folder}.lock"):
            if not _wheel_in(folder):
                _build(artifact, archive, short, folder, cache_path)
    except OSError as error:
        raise cannot_write(folder, "the cache of wheels", error) from None
    return _wheel_in(folder)


def _build(artifact: Artifact, archive: str, short: str, folder: str, cache_path: str) -> None:
    python = companion(short)
    who = f"{escaped(artifact.name, 100)} {escaped(artifact.version, 60)}"
    if not python:
        raise BuilderError(
            f"{who}: only its source is on the index, and no Python {short} is here to build it; install python{short}, or "
            "put its wheel on an index"
        )
    with scratch_folder() as scratch:
        source = os.path.join(scratch, "source")
        project = _cloned(artifact, source, who) if is_repository(artifact) else _extracted(archive, source, who)
        place = os.path.join(scratch, "build")
        os.mkdir(place)
        try:
            wheel = build.wheel(project, python, place, cache_path)
        except BuilderError as error:
            reason = str(error).partition(": ")[2].partition("; correct the project")[0]
            raise BuilderError(
                f"{who}: only its source can be had, and no wheel can be built here: {reason}; put its wheel on an index "
                "(pip wheel makes it), or push from the target platform"
            ) from None
        if not wheel.endswith("-none-any.whl"):
            raise BuilderError(
                f"{who}: only its source can be had, and it is compiled ({os.path.basename(wheel)}); make its wheel on the "
                "target platform with pip wheel and put it on an index, or push from there"
            )
        partial = tempfile.mkdtemp(prefix="partial-", dir=os.path.dirname(folder))
        try:
            shutil.copy(wheel, partial)
            shutil.rmtree(folder, ignore_errors=True)
            os.chmod(partial, 0o755)
            os.rename(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _cloned(artifact: Artifact, folder: str, who: str) -> str:
    found = _GIT.fullmatch(artifact.url)
    git = shutil.which("git")
    if not found or not git:
        raise BuilderError(f"{who}: installed from a repository, and git is not on PATH; install git")
    environment = _git_environment(git, os.path.dirname(folder))
    steps = (
        ["init", "--quiet", folder],
        ["-C", folder, "fetch", "--quiet", "--tags", "--", found["url"], "HEAD"],
        ["-C", folder, "fetch", "--quiet", "--", found["url"], found["commit"]],
        ["-C", folder, "-c", "advice.detachedHead=false", "checkout", "--quiet", found["commit"]],
    )
    for step in steps:
        done = subprocess.run(
            [git, *step],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        # Not every server gives a commit that no branch leads to; the checkout decides.
        if done.returncode and step[2:3] != ["fetch"]:
            reason = text_without_credentials((done.stderr.strip().splitlines() or ["no message"])[-1])
            raise BuilderError(
                f"{who}: git has no commit {found['commit'][:12]} of {found['url']}: {escaped(reason, 200)}; check your "
                "access to the repository, or put its wheel on an index"
            )
    below = found["below"] or ""
    if below and (not _BELOW.fullmatch(below) or ".." in below.split("/")):
        raise BuilderError(f"{who}: its subdirectory leads out of the repository; install it from another place")
    return os.path.join(folder, below)


def _git_environment(git: str, folder: str) -> dict[str, str]:
    """Variables for git: it keeps to the repository that it is given, and asks for nothing."""
    found = {name: value for name, value in os.environ.items() if name not in _OF_A_REPOSITORY}
    found["GIT_TERMINAL_PROMPT"] = "0"
    if not found.keys() & {"GIT_SSH_COMMAND", "GIT_SSH"}:
        command = [git, "config", "--get", "core.sshCommand"]
        configured = subprocess.run(command, cwd=folder, env=found, capture_output=True, check=False)
        if configured.returncode:
            found["GIT_SSH_COMMAND"] = "ssh -oBatchMode=yes"
    return found


def _extracted(archive: str, folder: str, who: str) -> str:
    os.mkdir(folder)
    try:
        if archive.endswith(".zip"):
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(folder)  # it keeps to the folder by itself
        else:
            with _TARFILE.open(archive) as tar:
                tar.extractall(folder, filter="data")
    except _DAMAGED as error:
        raise _damaged(who, error) from None
    except OSError as error:
        if error.errno is not None:
            raise
        # bz2 and gzip have no class of their own for damaged content.
        raise _damaged(who, error) from None
    inner = [os.path.join(folder, name) for name in os.listdir(folder)]
    return inner[0] if len(inner) == 1 and os.path.isdir(inner[0]) else folder


def _damaged(who: str, error: Exception) -> BuilderError:
    return BuilderError(
        f"{who}: damaged source distribution: {escaped(str(error), 200)}; report it to the index's operator"
    )


def _key(artifact: Artifact, archive: str) -> str:
    if artifact.sha256:
        return artifact.sha256
    if archive:
        with open(archive, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    return hashlib.sha256(artifact.url.encode()).hexdigest()


def _wheel_in(folder: str) -> str:
    try:
        return next((os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".whl")), "")
    except OSError:
        return ""


def filename_in(url: str) -> str:
    """Name of the file at `url`."""
    return unquote(urlsplit(url).path.rpartition("/")[2])
