"""`lamella push`: push an environment as layers to a registry or layout folder, under a tag."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lamella.cli import environment, findings, platforms
from lamella.cli.errors import UsageError
from lamella.cli.modes import Mode, flags_of
from lamella.cli.output import remark, result, result_json, table
from lamella.cli.settings import (
    BASE,
    COMPRESSION,
    FAIL_ON,
    IMAGE_PREFIX,
    MAX_LAYERS,
    TARGET_PLATFORMS,
    TRUST,
    add_settings,
    platforms_of,
    quoted,
)
from lamella.cli.tables import Column
from lamella.layers.text import counted, seconds, size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lamella.builder import Environment, ImageSettings, Pushed, PushOptions
    from lamella.layers import Platform

_OF_ITS_OWN = (
    *(IMAGE_PREFIX, BASE, COMPRESSION, MAX_LAYERS, *environment.CONTENTS, FAIL_ON),
    *(TARGET_PLATFORMS, *TRUST),
)
SETTINGS = (*_OF_ITS_OWN, *platforms.SETTINGS)
_EVERY = flags_of(
    "--no-local --wheels --allow-large --no-system-libraries --strict --check --append --sbom --sign",
    "--entrypoint --cmd --env --label --annotation --created",
    _OF_ITS_OWN,
)
MODES = (
    Mode("--watch", _EVERY | {"--poll"}),
    Mode("", _EVERY | {"--dry-run"} | flags_of("", platforms.SETTINGS)),
)
DOCKER_LAYERS = 125
"""Most layers that Docker's engine accepts; containerd's clients accept about as many."""
ERRORS = 5
"""Findings that are errors and are shown one by one."""
FINDINGS = "application/vnd.lamella.findings.v1+json"
SBOM = "application/vnd.cyclonedx+json"
LOCK = "application/vnd.lamella.lock.v1"
_DOES = {"build": "build and upload", "upload": "upload", "reuse": "reuse"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "reference", metavar="REFERENCE", help="registry/repository:tag, or oci:FOLDER:tag for an OCI layout folder"
    )
    environment.add_to(parser)
    environment.add_strict_to(parser)
    parser.add_argument("--dry-run", action="store_true", help="show what would be built and uploaded; change nothing")
    parser.add_argument(
        "--check",
        action="store_true",
        help="ask the registry for every blob, and send lost ones again (default: ask once a day)",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="push again whenever the environment or local code changes, until Ctrl-C; a failed push is retried",
    )
    parser.add_argument(
        "--poll", action="store_true", help="with --watch, look for changes every 0.3 s instead of using inotify"
    )
    parser.add_argument("--append", action="store_true", help="keep the other platforms of the tag")
    parser.add_argument("--sbom", action="store_true", help="attach a CycloneDX bill of materials")
    parser.add_argument(
        "--sign",
        metavar="KEY",
        help="sign with this private key, as cosign does, and reuse only layers built here or signed by it; without it, "
        "the repository's writers are trusted with its layers; the key's password is read from COSIGN_PASSWORD",
    )
    add_settings(parser, SETTINGS)
    image = parser.add_argument_group("runnable image")
    image.add_argument("--entrypoint", metavar="COMMAND", help="entry point, as one shell-quoted string")
    image.add_argument(
        "--cmd", metavar="COMMAND", help="command, as one shell-quoted string (default: the base image's, else python)"
    )
    image.add_argument(
        "--env", metavar="NAME=VALUE", action="append", default=[], help="set an environment variable; repeatable"
    )
    image.add_argument("--label", metavar="NAME=VALUE", action="append", default=[], help="set a label; repeatable")
    image.add_argument(
        "--annotation",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="annotate image and index, such as with org.opencontainers.image.source; repeatable",
    )
    image.add_argument(
        "--created",
        metavar="TIME",
        help="creation time, such as 2026-01-31T12:00:00Z, or now (default: 1980-01-01, for equal digests)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Push, and print the reference pinned to its digest."""
    from lamella.builder import Precompiler
    from lamella.cli.memory import return_large_blocks
    from lamella.cli.progress import shown
    from lamella.layers import Reference

    return_large_blocks()
    # An invalid option or reference fails before the scan, which takes seconds.
    options, named = _options(arguments), platforms_of(arguments)
    Reference.parse(arguments.reference)
    others = platforms.others(arguments, named)
    if arguments.watch and (others or named[1:]):
        raise UsageError("--watch: follows an environment for its own platform alone; push again after a change")
    if named:
        return _push_platforms(arguments, options, named, others)
    with shown(quiet=arguments.quiet) as progress, contextlib.closing(Precompiler(arguments.cache)) as precompiler:
        began = time.monotonic()
        first = options if options.dry_run else replace(options, precompiler=precompiler)
        scanned = environment.scanned(arguments, progress, precompiler=first.precompiler)
        _check(arguments, [scanned])
        ((pushed, _),) = platforms.push_each(arguments, first, [scanned], progress)
    return _finish(arguments, options, pushed, time.monotonic() - began)


def _push_platforms(
    arguments: argparse.Namespace, options: PushOptions, named: Sequence[Platform], others: Sequence[Platform]
) -> int:
    """Push for each named platform; resolve the packages for `others`, which the environment is not for."""
    from lamella.builder import BuilderError
    from lamella.cli.progress import shown

    with shown(quiet=arguments.quiet) as progress:
        found = platforms.plans(arguments, others, progress)
    if reason := platforms.objection(arguments, found, "see lamella scan with the same --platform"):
        if not arguments.json:
            platforms.show_all(arguments, found, to_stderr=not arguments.dry_run)
        raise BuilderError(f"nothing pushed: {reason}")
    if found and arguments.dry_run:
        if arguments.json:
            result_json(platforms.documents(arguments.prefix, found, arguments.reference))
        else:
            platforms.show_all(arguments, found, to_stderr=False)
        return 0
    platforms.show_all(arguments, found, to_stderr=True)
    began = time.monotonic()
    with (
        shown(quiet=arguments.quiet) as progress,
        platforms.environments(arguments, named, found, progress) as scanned,
    ):
        _check(arguments, scanned)
        pushed = platforms.push_each(arguments, options, scanned, progress)
    *earlier, (last, took) = pushed
    if arguments.json:
        value = document(last, took, dry_run=arguments.dry_run)
        value["others"] = [document(each, seconds_, dry_run=arguments.dry_run) for each, seconds_ in earlier]
        result_json(value | {"resolutions": [platforms.document(plan) for plan in found.values()]})
        return 0
    if not earlier:
        return _finish(arguments, options, last, time.monotonic() - began)
    result(last.reference)
    for each, seconds_ in pushed:
        for line in _remarks(arguments, each, seconds_):
            remark(f"{each.environment.platform}: {line}", quiet=arguments.quiet)
    return 0


def _check(arguments: argparse.Namespace, scanned: Sequence[Environment]) -> None:
    """Name the environments to push. Raise `BuilderError` if one of them fails --strict or --fail-on."""
    from lamella.builder import BuilderError

    for each in scanned:
        if objection := environment.objection(each, arguments.fail_on, arguments.strict, "see lamella scan"):
            raise BuilderError(f"nothing pushed: {objection}")
    for each in scanned:
        python = f"Python {each.interpreter.version} on {each.platform}"
        remark(f"environment {os.path.abspath(arguments.prefix or each.prefix)}: {python}", quiet=arguments.quiet)


def _finish(arguments: argparse.Namespace, options: PushOptions, pushed: Pushed, took: float) -> int:
    """Print the pushed reference, or go on watching."""
    if arguments.watch:
        from lamella.cli import watching

        return watching.push_again(arguments, options, pushed, took)
    if arguments.json:
        result_json(document(pushed, took, dry_run=arguments.dry_run))
        return 0
    if arguments.dry_run:
        _show_plan(pushed)
    result(pushed.reference)
    for line in _remarks(arguments, pushed, took):
        remark(line, quiet=arguments.quiet)
    return 0


def document(pushed: Pushed, took: float, *, dry_run: bool) -> dict[str, Any]:
    """Return a push, or its plan, as JSON."""
    severities = [finding.severity for finding in pushed.environment.findings]
    return {
        "reference": pushed.reference,
        "dry_run": dry_run,
        "unchanged": pushed.plan.unchanged,
        "prefix": pushed.environment.prefix,
        "python": pushed.environment.interpreter.version,
        "platform": str(pushed.environment.platform),
        "packages": len(pushed.environment.packages),
        "built": {"layers": pushed.built},
        "reused": {"layers": pushed.reused},
        "base": {"layers": len(pushed.plan.base), "bytes": sum(layer.size for layer in pushed.plan.base)},
        "uploaded": {"layers": pushed.uploaded, "bytes": pushed.moved},
        "findings": {severity: severities.count(severity) for severity in findings.SEVERITIES},
        "errors": [findings.document(each) for each in pushed.environment.findings if each.severity == "error"],
        "attached": [{"type": each.artifact_type, "bytes": each.size} for each in pushed.attached],
        "findings_attached": bool(severities) and not dry_run and not pushed.unattached,
        "layers": [
            {
                "packages": list(layer.wanted.packages),
                "key": layer.wanted.key,
                "action": layer.action,
                "digest": str(layer.built.digest) if layer.built else None,
                "size": layer.built.size if layer.built else None,
            }
            for layer in pushed.plan.layers
        ],
        "seconds": round(took, 3),
    }


def _remarks(arguments: argparse.Namespace, pushed: Pushed, took: float) -> list[str]:
    dry_run, most, has_base = arguments.dry_run, arguments.max_layers, bool(arguments.base)
    packages = counted(len(pushed.environment.packages), "package")
    if dry_run:
        build, upload = pushed.plan.chosen("build"), pushed.plan.chosen("upload")
        lines = [
            (
                f"{packages}: {counted(len(build), 'layer')} to build and upload, {len(upload)} to upload "
                f"({size(pushed.plan.upload_size)}), {pushed.reused} already there"
            )
        ]
        if base := pushed.plan.base:
            lines.append(
                f"{counted(len(base), 'layer')} to copy from the base image ({size(sum(each.size for each in base))})"
            )
    elif pushed.plan.unchanged:
        lines = [f"{packages}: nothing changed, {_attached(pushed) or 'nothing uploaded'}; {seconds(took)}"]
    else:
        lines = [
            (
                f"{packages}: {counted(pushed.built, 'layer')} built, {pushed.uploaded} uploaded, "
                f"{pushed.reused} already there; {size(pushed.moved)} in {seconds(took)}"
            )
        ]
        if attached := _attached(pushed):
            lines.append(attached)
    errors = [finding.message for finding in pushed.environment.findings if finding.severity == "error"]
    lines += [f"error: {message}" for message in errors[:ERRORS]]
    if serious := findings.how_many(pushed.environment.findings, ("error", "warning")):
        lines.append(f"{serious} in this environment; see lamella scan")
    # Once for each tag, not after each change.
    if not has_base and pushed.new:
        lines.append(
            "the runnable image has no base, and so no C library: for docker run and Kubernetes without Lamella, add "
            "--base, such as --base debian:stable-slim"
        )
    if most > DOCKER_LAYERS:
        lines.append(f"--max-layers {most}: Docker accepts at most {DOCKER_LAYERS} layers")
    if pushed.unattached:
        lines.append(f"findings not attached: {pushed.unattached}")
    return lines


def _attached(pushed: Pushed) -> str:
    """Return the new attachments of the index as text; empty without any."""
    names = {SBOM: "the bill of materials", FINDINGS: "the findings", LOCK: "a lock file"}
    new = [f"{names.get(each.artifact_type, each.artifact_type)} ({size(each.size)})" for each in pushed.attached]
    return f"attached {' and '.join(new)}" if new else ""


def _show_plan(pushed: Pushed) -> None:
    planned = [layer for layer in pushed.plan.layers if layer.action != "reuse"]
    if not planned:
        return
    table(
        (Column("Layer", style="bold", shrinks=True), Column("Action"), Column("Files", "right")),
        [
            (_named(layer.wanted.packages), _DOES[layer.action], size(layer.wanted.size))
            for layer in sorted(planned, key=lambda layer: -layer.wanted.size)
        ],
    )
    result("")


def _named(packages: Sequence[str]) -> str:
    return packages[0] if len(packages) == 1 else f"{counted(len(packages), 'package')} bundled for the image"


def _options(arguments: argparse.Namespace) -> PushOptions:
    from lamella.builder import PushOptions
    from lamella.layers import read_private_key

    return PushOptions(
        image_prefix=arguments.image_prefix,
        base=arguments.base,
        image=_image_settings(arguments),
        compression=arguments.compression,
        max_layers=arguments.max_layers,
        dry_run=arguments.dry_run,
        check=arguments.check,
        append=arguments.append,
        sbom=arguments.sbom,
        signing_key=read_private_key(arguments.sign, os.environ.get("COSIGN_PASSWORD")) if arguments.sign else None,
    )


def _image_settings(arguments: argparse.Namespace) -> ImageSettings:
    from lamella.builder import CREATED, ImageSettings

    for flag, pairs in (
        ("--env", arguments.env),
        ("--label", arguments.label),
        ("--annotation", arguments.annotation),
    ):
        for pair in pairs:
            if not pair.partition("=")[0] or "=" not in pair:
                raise UsageError(f"{flag} {quoted(pair)}: not NAME=VALUE")
    created = arguments.created or CREATED
    if created == "now":
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return ImageSettings(
        entrypoint=_words("--entrypoint", arguments.entrypoint),
        cmd=_words("--cmd", arguments.cmd),
        env=tuple(arguments.env),
        labels=dict(pair.split("=", 1) for pair in arguments.label),
        annotations=dict(pair.split("=", 1) for pair in arguments.annotation),
        created=created,
    )


def _words(flag: str, text: str | None) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text or ""))
    except ValueError as error:
        raise UsageError(f"{flag} {quoted(text)}: {error}; quote it as for a shell") from None
