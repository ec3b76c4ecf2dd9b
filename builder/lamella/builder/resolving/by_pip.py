"""Resolve with `pip install --dry-run --report`, where uv is missing: nothing is built or installed.

pip evaluates markers for the machine that it runs on, so it is asked without dependencies, and what the answers require on
the target is asked for in the next round. pip has no index for some packages alone either: each group of packages with the
same indexes is a run of its own. Logins are in a configuration file that only this user can read, never on the command line.
Source: pip's "Installation Report".
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from lamella.builder.files.scratch import scratch_folder
from lamella.builder.files.small_file import read_json
from lamella.builder.indexes.client import IndexUnusable
from lamella.builder.indexes.model import with_login
from lamella.builder.installed.distributions import normalised
from lamella.builder.resolving import resolver_reasons, target_tags
from lamella.builder.resolving.offered import offers
from lamella.builder.resolving.question import ResolverMissing, Unsolvable, Wheel
from lamella.builder.resolving.reachable import applies, parsed
from lamella.builder.resolving.resolver_process import ROOM, run_resolver
from lamella.builder.urls import file_without_credentials, text_without_credentials
from lamella.layers.logs import record
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from packaging.requirements import Requirement

    from lamella.builder.indexes.model import Indexes, PackageIndex
    from lamella.builder.resolving.question import Question

_ROUNDS = 30
"""Of requirements of requirements: a chain in real environments has fewer than ten."""
_STATUS = re.compile(r"\b(401|403|404|407|5\d\d) (?:Client|Server) Error|\b(401|403) Error")

_OWN = frozenset(
    f"PIP_{name}"
    for name in (
        *("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX", "CONFIG_FILE"),
        *("USER", "TARGET", "PREFIX", "NO_BINARY"),
    )
)
"""Variables whose options are set here."""
_YANKED = re.compile(r"yanked version: '([\w.-]+)'")


@dataclass(frozen=True, slots=True)
class _Found:
    wheel: Wheel
    requires: tuple[str, ...]


def find_pip() -> tuple[str, ...]:
    """Command of pip: of this interpreter, or on PATH; empty without one."""
    if importlib.util.find_spec("pip"):
        return (sys.executable, "-m", "pip")
    found = shutil.which("pip") or shutil.which("pip3")
    return (found,) if found else ()


def solve(question: Question) -> tuple[Wheel, ...]:
    """Return one wheel for each package, sorted by name.

    Raises `Unsolvable` with pip's reason, `IndexUnusable`, and `ResolverMissing`.
    """
    pip = find_pip()
    if not pip:
        raise ResolverMissing("neither uv nor pip is here; install uv")
    markers = target_tags.target_markers(question.target)
    wanted: dict[str, list[Requirement]] = {}
    for requirement in parsed(question.requirements):
        if applies(requirement, markers) and normalised(requirement.name) not in question.absent:
            wanted.setdefault(normalised(requirement.name), []).append(requirement)
    found: dict[str, _Found] = {}
    pending = set(wanted)
    for _ in range(_ROUNDS):
        if not pending:
            break
        found.update(_asked(pip, question, {name: wanted[name] for name in sorted(pending)}))
        pending = _required(found, wanted, question, markers) if question.dependencies else set()
    return tuple(found[name].wheel for name in sorted(found))


def _required(
    found: Mapping[str, _Found], wanted: dict[str, list[Requirement]], question: Question, markers: Mapping[str, str]
) -> set[str]:
    """Names to ask for next, whose requirements are added to `wanted`."""
    missing: set[str] = set()
    for name, each in list(found.items()):
        extras = {extra for requirement in wanted[name] for extra in requirement.extras}
        for requirement in parsed(each.requires):
            other = normalised(requirement.name)
            if other in question.absent or not applies(requirement, markers, extras):
                continue
            if other in found:
                if not requirement.specifier.contains(found[other].wheel.version, prereleases=True):
                    have = f"{other} {found[other].wheel.version} was chosen"
                    raise Unsolvable(f"{name} {each.wheel.version} requires {other}{requirement.specifier}, but {have}")
                new = requirement.extras - {extra for known in wanted[other] for extra in known.extras}
                if new:
                    wanted[other].append(requirement)
                    missing.add(other)
            else:
                wanted.setdefault(other, []).append(requirement)
                missing.add(other)
    return missing


def _asked(
    pip: tuple[str, ...], question: Question, wanted: Mapping[str, list[Requirement]]
) -> Iterator[tuple[str, _Found]]:
    for indexes, names in _groups(wanted, question.indexes):
        lines = []
        for name in names:
            specifier = ",".join(filter(None, (str(requirement.specifier) for requirement in wanted[name])))
            lines.append(f"{name}{specifier}")
        with scratch_folder() as folder:
            report = _report(pip, question, folder, lines, indexes)
        for item in report.get("install", []):
            each = _of_report(item, indexes, report["yanked"])
            yield each.wheel.name, each


def _groups(wanted: Mapping[str, object], indexes: Indexes) -> Iterator[tuple[tuple[PackageIndex, ...], list[str]]]:
    chosen = {name: indexes.for_package(name) for name in wanted}
    several = [name for name, found in chosen.items() if len(found) > 1]
    if several and indexes.strategy == "first-index":
        for name, offer in offers(several, indexes).items():
            # pip itself takes the newest version of any index.
            chosen[name] = tuple(each for each in chosen[name] if each.url == offer.index) or chosen[name]
    for group in dict.fromkeys(chosen.values()):
        yield group, sorted(name for name, found in chosen.items() if found == group)


def _report(
    pip: tuple[str, ...], question: Question, folder: str, lines: list[str], indexes: tuple[PackageIndex, ...]
) -> dict[str, Any]:
    listed, answer, settings = (os.path.join(folder, name) for name in ("requirements.txt", "report.json", "pip.conf"))
    with open(listed, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    with open(os.open(settings, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
        file.write("\n".join(_settings(indexes, question.indexes, folder)) + "\n")
    command = [*pip, "install", "--dry-run", "--quiet", "--report", answer, "--ignore-installed", "--no-deps"]
    command += ["--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--no-color"]
    command += ["--implementation", "cp", "--python-version", question.target.python]
    short = "".join(question.target.python.split(".")[:2])
    for abi in (f"cp{short}", "abi3", "none"):
        command += ["--abi", abi]
    for tag in target_tags.platform_tags(question.target):
        command += ["--platform", tag]
    # The folder is never written; versions of pip before 23.1 ask for it beside --platform.
    command += ["--target", os.path.join(folder, "target"), "-r", listed]
    environment = {name: value for name, value in os.environ.items() if name not in _OWN}
    done = run_resolver("pip", command, folder, {**environment, "PIP_CONFIG_FILE": settings})
    if done.returncode:
        raise _failure(done.stderr, question, indexes)
    value = read_json(answer)
    if not isinstance(value, dict):
        return {}
    # Versions of pip before 24 state it in a warning alone.
    return value | {"yanked": [normalised(name) for name in _YANKED.findall(done.stderr)]}


def _settings(indexes: tuple[PackageIndex, ...], configured: Indexes, folder: str) -> Iterator[str]:
    urls, links = ([with_login(each) for each in places] for places in (indexes, configured.find_links))
    empty = os.path.join(folder, "no-links")
    os.mkdir(empty)
    # A section [install] goes before [global] of any file, and pip skips a key without a value: each key of the user's
    # own files is so written in both sections, with a value. pip asks an index once that is given twice.
    for section in ("global", "install"):
        yield f"[{section}]"
        if urls:
            yield f"index-url = {urls[0]}"
            yield "extra-index-url =" + "".join(f"\n    {url}" for url in urls[1:] or urls)
        yield f"no-index = {str(not urls).lower()}"
        yield "find-links =" + "".join(f"\n    {url}" for url in links or (Path(empty).as_uri(),))
        yield "user = false"


def _failure(output: str, question: Question, indexes: Iterable[PackageIndex]) -> IndexUnusable | Unsolvable:
    text = " ".join(text_without_credentials(question.indexes.hidden(output)).split())
    record(ROOM, f"pip: {escaped(text)}")
    status = _STATUS.search(text)
    where = ", ".join(each.url for each in indexes)
    if status or "User for " in text:
        number = (status[1] or status[2]) if status else "401"
        if number in ("401", "403"):
            return IndexUnusable(f"index {where}: requires another login ({number}); correct it in netrc or its URL")
        return IndexUnusable(f"index {where}: answered {number}; check its URL, or try again later")
    if "NewConnectionError" in text or "Max retries" in text or "ConnectionError" in text or "connection" in text:
        return IndexUnusable(f"index {where}: cannot be reached; check its URL and the network, or try again later")
    reason = resolver_reasons.of_pip(text, question.target)
    return Unsolvable(reason.text or "pip found no set of packages, and --verbose shows its reasons", reason.names)


def _of_report(item: Mapping[str, Any], indexes: tuple[PackageIndex, ...], yanked: Collection[str]) -> _Found:
    url, metadata = str(item["download_info"]["url"]), item["metadata"]
    hashes = (item["download_info"].get("archive_info") or {}).get("hashes") or {}
    return _Found(
        Wheel(
            name=normalised(str(metadata["name"])),
            version=str(metadata["version"]),
            filename=unquote(urlsplit(url).path.rpartition("/")[2]),
            url=file_without_credentials(url),
            sha256=str(hashes.get("sha256", "")),
            index=indexes[0].url if len(indexes) == 1 else "",
            query=urlsplit(url).query,
            yanked=item.get("is_yanked") is True or normalised(str(metadata["name"])) in yanked,
        ),
        tuple(str(each) for each in metadata.get("requires_dist") or ()),
    )
