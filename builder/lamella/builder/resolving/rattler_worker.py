"""A process that solves and installs conda packages with rattler, for `rattler_process`.

rattler's threads can crash an interpreter that shuts down, so they are in a process that ends without clean-up.
One JSON object a line, in and out: a request has the function's name as `do`; an answer has `result` or `error`, after
any number of `advance`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rattler
import rattler.exceptions

from lamella.builder.urls import text_without_credentials, without_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# One for each part of rattler, without a common root.
_ERRORS: tuple[type[Exception], ...] = (
    LookupError,
    OSError,
    ValueError,
    *(each for each in vars(rattler.exceptions).values() if isinstance(each, type) and issubclass(each, Exception)),
)
_LINUX = ("linux-64", "linux-aarch64")


class _Session:
    """What the requests of one process share: the channels' records."""

    def __init__(self) -> None:
        # Mirrors, proxies and certificates as pixi has them; credentials come from its store, RATTLER_AUTH_FILE, netrc
        # and URLs.
        self._config = rattler.Config.load_from_default_locations("pixi")
        # Later writes to the prefix must not reach the cache that other tools share.
        self._config.set("allow-hard-links", "false")
        self._gateway = rattler.Gateway.from_config(self._config)

    async def candidates(
        self, channels: Sequence[str], subdir: str, versions: Mapping[str, str], origins: Mapping[str, str]
    ) -> dict[str, dict[str, Any]]:
        """By name, of the channel in `origins`: builds of the installed version, the newest of its major.minor, the newest, and other subdirs."""
        names = list(versions)
        platforms: Any = [*dict.fromkeys((subdir, *_LINUX)), "noarch"]
        found: dict[str, list[Any]] = {name: [] for name in versions}
        answer = await self._gateway.query([*channels], platforms, names, recursive=False)
        for records in answer:
            for record in records:
                name = record.name.normalized
                if name not in origins or origins[name] == _bare(record.channel):
                    found[name].append(record)
        return {name: _summary(found[name], versions[name], subdir) for name in versions}

    async def solve(
        self,
        channels: Sequence[str],
        subdir: str,
        attempts: Sequence[Mapping[str, Any]],
        virtual: Mapping[str, Sequence[str]],
    ) -> dict[str, Any]:
        """Records of the first of `attempts` that has a solution, with its number, and why the one before had none."""
        packages = [
            rattler.GenericVirtualPackage(
                rattler.PackageName(name), rattler.Version(version), rattler.BuildString(build)
            )
            for name, (version, build) in virtual.items()
        ]
        platforms: Any = [subdir, "noarch"]
        reason = ""
        for number, attempt in enumerate(attempts):
            preferred = set(attempt["preferred"])
            locked = []
            if preferred:
                names = attempt["names"]
                for records in await self._gateway.query([*channels], platforms, names, recursive=False):
                    locked += [record for record in records if record.url in preferred]
            try:
                solved = await rattler.solve(
                    [*channels],
                    [*attempt["specs"]],
                    gateway=self._gateway,
                    platforms=platforms,
                    locked_packages=locked,
                    virtual_packages=packages,
                    constraints=[*attempt["constraints"]],
                )
            except rattler.exceptions.SolverError as error:
                # Specifications name their channel as it is asked, with its password.
                reason = text_without_credentials(str(error))
                continue
            return {"attempt": number, "reason": reason, "records": [_record(each) for each in solved]}
        return {"attempt": -1, "reason": reason, "records": []}

    async def install(
        self, packages: Sequence[Mapping[str, str]], prefix: str, subdir: str, requested: Sequence[str]
    ) -> None:
        """Install packages, each with its channel, name, URL and sha256, in `prefix`, which has then no others."""
        channels = list(dict.fromkeys(each["channel"] for each in packages))
        names = [each["name"] for each in packages]
        platforms: Any = [subdir, "noarch"]
        wanted = {each["url"]: each for each in packages}
        records: dict[str, Any] = {}
        for found in await self._gateway.query([*channels], platforms, names, recursive=False):
            records |= {without_credentials(record.url): record for record in found}
        if missing := [each["name"] for url, each in wanted.items() if url not in records]:
            raise LookupError(f"{', '.join(missing)}: no longer in the channel; push again to resolve anew")
        for url, each in wanted.items():
            if each["sha256"] != _sha256(records[url]):
                raise LookupError(f"{each['name']}: its hash in the channel has changed; push again to resolve anew")
        # An installer wants the bare object of rattler's extension module.
        specs: Any = [rattler.MatchSpec(spec)._match_spec for spec in requested]
        await rattler.install(
            [records[url] for url in wanted],
            prefix,
            platform=rattler.Subdir(subdir),
            execute_link_scripts=False,
            show_progress=False,
            config=self._config,
            requested_specs=specs,
            reporter=_Reporter(),  # type: ignore[abstract] # its methods have empty bodies, and are optional
        )

    async def lock(self, prefix: str, subdir: str, path: str, virtual: Sequence[str]) -> None:
        """Write a pixi.lock of the conda packages in `prefix`."""
        platform = rattler.LockPlatform(subdir, rattler.Subdir(subdir), list(virtual) or None)
        locked = rattler.LockFile([platform])
        records = [rattler.PrefixRecord.from_path(each) for each in sorted(Path(prefix, "conda-meta").glob("*.json"))]
        channels = dict.fromkeys(_channel(record.channel) for record in records)
        locked.set_channels("default", [rattler.LockChannel(url) for url in channels])
        for record in records:
            locked.add_conda_package("default", platform, record)
        locked.to_path(Path(path))

    async def locked(self, path: str, subdir: str) -> dict[str, list[str]]:
        """By name: version and URL of the packages in a pixi.lock for `subdir`; of several environments, the first."""
        found: dict[str, list[str]] = {}
        try:
            lock = rattler.LockFile.from_path(Path(path))
        except _ERRORS:
            raise LookupError(f"{path}: not a lock file; lock the project again, or remove it") from None
        for _, environment in lock.environments():
            for record in environment.conda_repodata_records().get(subdir, ()):
                found.setdefault(record.name.normalized, [str(record.version), record.url])
        return found


class _Reporter(rattler.InstallerReporter):
    def on_link_complete(self, index: int) -> None:  # noqa: ARG002 - the interface's
        _write({"advance": 1})


def _bare(channel: object) -> str:
    """URL of a channel as installed records are compared by."""
    return without_credentials(str(channel)).rstrip("/")


def _summary(records: Sequence[Any], installed: str, subdir: str) -> dict[str, Any]:
    fitting = [record for record in records if record.subdir in (subdir, "noarch")]
    fitting.sort(key=lambda record: (record.version, record.build_number), reverse=True)
    minor = installed.split(".")[:2]
    near = [record for record in fitting if str(record.version).split(".")[:2] == minor]
    return {
        "exact": [_record(record) for record in fitting if str(record.version) == installed],
        "near": [_record(record) for record in near[:1]],
        "newest": [_record(record) for record in fitting[:1]],
        "elsewhere": sorted({record.subdir for record in records} - {subdir, "noarch"}),
    }


def _record(record: Any) -> dict[str, Any]:
    return {
        "name": record.name.normalized,
        "version": str(record.version),
        "build": str(record.build),
        "url": record.url,
        "channel": _channel(record.channel),
        "subdir": record.subdir,
        "sha256": _sha256(record),
        "size": record.size or 0,
    }


def _sha256(record: Any) -> str:
    digest = record.sha256
    return digest.hex() if isinstance(digest, bytes) else str(digest or "")


def _channel(url: Any) -> str:
    return str(url or "").rstrip("/")


def _write(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _serve() -> None:
    session = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            session = session or _Session()
            function = getattr(session, request.pop("do"))
            _write({"result": await function(**request)})
        except _ERRORS as error:
            _write({"error": text_without_credentials(f"{type(error).__name__}: {error}")})


def main() -> None:
    """Answer requests on standard input until it ends."""
    asyncio.run(_serve())
    os._exit(0)
