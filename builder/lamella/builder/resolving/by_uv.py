"""Resolve with `uv pip compile`: nothing is built, and nothing of the target runs.

uv gets the indexes as files of its own in an empty folder, and logins in its environment and these files: never on its
command line, which other users can see. Source: uv's reference of settings; PEP 751 for what it writes.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lamella.builder.files.scratch import scratch_folder
from lamella.builder.files.small_file import read_text, read_toml
from lamella.builder.indexes.client import IndexUnusable, LoginRefused
from lamella.builder.indexes.model import PYPI, with_login, with_query
from lamella.builder.installed.distributions import normalised
from lamella.builder.resolving import resolver_reasons, target_tags
from lamella.builder.resolving.question import ResolverMissing, Unsolvable, Wheel, best_of
from lamella.builder.resolving.resolver_process import ROOM, run_resolver
from lamella.builder.urls import file_without_credentials, text_without_credentials, without_credentials
from lamella.layers.logs import record
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lamella.builder.indexes.model import Indexes
    from lamella.builder.resolving.question import Question

_OLDEST = (0, 7)
"""The first uv that writes pylock.toml and takes versions to prefer from one."""
_CACHES = (0, 9)
"""A uv that has `cache-control` of an index."""
_FRESH_OF_PYPI = {"cache-control.api": "max-age=600", "cache-control.files": "max-age=365000000, immutable"}
"""PyPI's own, which mirrors of it leave out."""
_FRESH = {"cache-control.api": "max-age=60", "cache-control.files": "max-age=600"}
"""Most indexes state nothing, and uv would ask for every page again in each of its runs for one push."""
_GLIBC = (17, 28, *range(31, 41))
"""Minor versions of glibc that uv has a platform for."""
_MACHINES = frozenset({"amd64", "arm64"})
_OWN = (
    "UV_INDEX",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_NO_INDEX",
    "UV_CONFIG_FILE",
    "UV_NO_CONFIG",
)
"""Variables with indexes: those of the question take their place."""
_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})|\((\d{3}) (?:Unauthorized|Forbidden)\)")
_NUMBER = re.compile(r" \(os error \d+\)")
_YANKED = re.compile(r"`([\w.-]+)==[^`]*` is yanked")
_FETCHED = re.compile(r"(?:Failed to fetch: |index URL \(|url \()`?(\w+://[^\s`)]+)")


@functools.cache
def find_uv() -> str:
    """Path of uv: beside this interpreter, of its package, or on PATH; empty without one that is new enough."""
    beside = os.path.dirname(sys.executable)
    for path in (shutil.which("uv", path=beside), _packaged(), shutil.which("uv")):
        if path and _version(path) >= _OLDEST:
            return path
    return ""


def _packaged() -> str:
    try:
        from uv import find_uv_bin  # type: ignore[import-untyped, unused-ignore]

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        return ""


@functools.cache
def _version(path: str) -> tuple[int, ...]:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.match(r"uv (\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else ()


def serves(question: Question) -> bool:
    """Whether uv is here and knows the target."""
    return question.target.platform.architecture in _MACHINES and bool(find_uv())


def solve(question: Question) -> tuple[Wheel, ...]:
    """Return one wheel for each package, sorted by name.

    Raises `Unsolvable` with uv's reason, `IndexUnusable`, and `ResolverMissing`.
    """
    uv = find_uv()
    if not uv:
        raise ResolverMissing("uv is not here; install uv")
    with scratch_folder() as folder:
        _write(folder, question)
        command = [uv, "pip", "compile", "pyproject.toml", *_options(question)]
        environment = _environment(question.indexes, folder)
        lock = os.path.join(folder, "pylock.toml")
        written = _run([*command, "--format", "pylock.toml", "--output-file", lock], folder, environment, question)
        packages = read_toml(lock).get("packages", [])
        origins = _origins(command, folder, environment, question, packages)
    yanked = {normalised(name) for name in _YANKED.findall(written)}
    chosen = sorted(_chosen(packages, origins, question), key=lambda wheel: wheel.name)
    return tuple(replace(wheel, yanked=wheel.name in yanked) for wheel in chosen)


def _options(question: Question) -> Iterator[str]:
    target = question.target
    wanted = target_tags.glibc_minor(target.glibc)
    minor = max((each for each in _GLIBC if each <= wanted), default=_GLIBC[0])
    yield from ("--python-platform", f"{target_tags.machine(target.platform.architecture)}-manylinux_2_{minor}")
    yield from ("--python-version", target.python, "--python", sys.executable, "--no-python-downloads")
    yield from ("--only-binary", ":all:", "--no-progress", "--no-header", "--no-annotate", "--color", "never")
    yield from ("--index-strategy", question.indexes.strategy)
    if question.absent:
        yield from ("--overrides", "overrides.txt")
    if not question.dependencies:
        yield "--no-deps"


def _write(folder: str, question: Question) -> None:
    cached = _version(find_uv()) >= _CACHES
    tables = [
        {"name": f"lamella-{number}", "url": with_query(each)}
        | ((_FRESH_OF_PYPI if each.url == PYPI else _FRESH) if cached else {})
        | ({"explicit": True} if each.explicit else {})
        # uv itself would use the login of any index on that server.
        | ({"authenticate": "never"} if question.indexes.beside_a_login(each) else {})
        | ({"authenticate": each.authenticate} if each.authenticate != "auto" else {})
        for number, each in enumerate(question.indexes.indexes)
    ]
    named = {each.url: table["name"] for each, table in zip(question.indexes.indexes, tables, strict=True)}
    shared = [table for table in tables if not table.get("explicit")]
    if shared:
        # Without a default index of its own, uv asks the public one as well.
        shared[-1]["default"] = True
    lines = [
        "[project]",
        f"name = {json.dumps(resolver_reasons.PROJECT)}",
        'version = "0"',
        f"requires-python = {json.dumps('>=' + target_tags.short_version(question.target.python))}",
        f"dependencies = {json.dumps(question.requirements)}",
        "[tool.uv.sources]",
        *(
            f"{json.dumps(name)} = {{ index = {json.dumps(named[url])} }}"
            for name, url in sorted(question.indexes.pins.items())
            if url in named
        ),
        *_index_lines(tables, "tool.uv.index"),
    ]
    # What pins name is read from the project, what every package is looked for in from the settings.
    settings = [*_index_lines(tables, "index")]
    if not shared:
        settings.insert(0, "no-index = true")
    if question.indexes.find_links:
        settings.insert(0, f"find-links = {json.dumps([with_login(each) for each in question.indexes.find_links])}")
    files = {
        "pyproject.toml": "\n".join(lines),
        "uv.toml": "\n".join(settings),
        "overrides.txt": "\n".join(f"{name} ; python_version < '0'" for name in sorted(question.absent)),
    }
    if question.preferred:
        files["pylock.toml"] = "\n".join(_preferred(question.preferred))
    for name, text in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text + "\n")


def _index_lines(tables: Iterable[Mapping[str, object]], name: str) -> Iterator[str]:
    for table in tables:
        yield f"[[{name}]]"
        yield from (f"{key} = {json.dumps(value)}" for key, value in table.items())


def _preferred(versions: Mapping[str, str]) -> Iterator[str]:
    yield from ('lock-version = "1.0"', 'created-by = "lamella"')
    for name, version in sorted(versions.items()):
        yield from ("[[packages]]", f"name = {json.dumps(name)}", f"version = {json.dumps(version)}")


def _environment(indexes: Indexes, folder: str) -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
    found["UV_CONFIG_FILE"] = os.path.join(folder, "uv.toml")
    # A virtual environment that is active has no part in it.
    found.pop("VIRTUAL_ENV", None)
    for number, each in enumerate(indexes.indexes):
        if each.login:
            found[f"UV_INDEX_LAMELLA_{number}_USERNAME"] = each.login.user
            found[f"UV_INDEX_LAMELLA_{number}_PASSWORD"] = each.login.password
    return found


def _run(command: list[str], folder: str, environment: Mapping[str, str], question: Question) -> str:
    done = run_resolver("uv", command, folder, environment)
    if done.returncode:
        raise _failure(done.stderr, question)
    return done.stderr


def _failure(output: str, question: Question) -> IndexUnusable | Unsolvable:
    text = " ".join(text_without_credentials(question.indexes.hidden(output)).split())
    record(ROOM, f"uv: {escaped(text)}")
    status, url = _STATUS.search(text), _FETCHED.search(text)
    place = f"index {escaped(without_credentials(url[1]), 200)}" if url else "the index"
    if status:
        number = status[1] or status[2]
        if number in ("401", "403"):
            advice = "requires another login" if number == "401" else "denies access"
            return LoginRefused(f"{place}: {advice} ({number}); correct its login in netrc, the keyring or its URL")
        return IndexUnusable(f"{place}: answered {number}; check its URL, or try again later")
    if "error sending request" in text or "Request failed" in text or "Failed to fetch" in text:
        cause = _NUMBER.sub("", text.rpartition("cause: ")[2] or text)
        return IndexUnusable(f"{place}: {escaped(cause, 200)}; check its URL and the network, or try again later")
    reason = resolver_reasons.of_uv(text, question.target)
    return Unsolvable(reason.text or "uv found no set of packages, and --verbose shows its reasons", reason.names)


def _origins(
    command: list[str],
    folder: str,
    environment: Mapping[str, str],
    question: Question,
    packages: list[dict[str, object]],
) -> dict[str, str]:
    """URL of the index of each package; uv writes it only beside names and versions."""
    names = [normalised(str(package.get("name", ""))) for package in packages]
    candidates = {name: question.indexes.for_package(name) for name in names}
    if all(len(found) < 2 for found in candidates.values()) and not question.indexes.find_links:
        return {name: found[0].url for name, found in candidates.items() if found}
    listed = os.path.join(folder, "requirements.txt")
    with open(listed, "w", encoding="utf-8") as file:
        file.writelines(f"{package['name']}=={package['version']}\n" for package in packages)
    _run([*command, "--emit-index-annotation", "--output-file", listed], folder, environment, question)
    found, name = {}, ""
    for line in read_text(listed).splitlines():
        if line[:1].isalnum():
            name = normalised(re.split(r"[=@ ;\[]", line, maxsplit=1)[0])
        elif "# from " in line:
            found[name] = question.indexes.index_of(without_credentials(line.partition("# from ")[2].strip()))
    return found


def _chosen(
    packages: Iterable[Mapping[str, object]], origins: Mapping[str, str], question: Question
) -> Iterator[Wheel]:
    for package in packages:
        name, version = normalised(str(package["name"])), str(package.get("version", ""))
        wheels = package.get("wheels")
        found = best_of(_wheels(wheels if isinstance(wheels, list) else [], name, version, origins), question.target)
        if found is None:
            platform = question.target.platform
            raise Unsolvable(
                f"no wheel of {name} {version} fits {platform} with glibc {question.target.glibc}", (name,)
            )
        yield found


def _wheels(listed: Iterable[object], name: str, version: str, origins: Mapping[str, str]) -> Iterator[Wheel]:
    for each in listed:
        if not isinstance(each, dict):
            continue
        url = str(each.get("url") or "")
        if not url and each.get("path"):
            url = f"file://{os.path.abspath(str(each['path']))}"
        hashes, size = each.get("hashes"), each.get("size")
        yield Wheel(
            name=name,
            version=version,
            filename=unquote(urlsplit(url).path.rpartition("/")[2]),
            url=file_without_credentials(url),
            sha256=str(hashes.get("sha256", "")) if isinstance(hashes, dict) else "",
            size=size if isinstance(size, int) else 0,
            index=origins.get(name, ""),
            query=urlsplit(url).query,
        )
