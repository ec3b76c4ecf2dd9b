"""`lamella push`: the environment as layers in a registry or a layout folder, under a tag."""

from __future__ import annotations

import os
import shlex
import time
from typing import TYPE_CHECKING, Any

from lamella.cli import environment, findings
from lamella.cli.output import Column, counted, remark, result, result_json, seconds, size, table
from lamella.cli.settings import BASE, COMPRESSION, IMAGE_PREFIX, MAX_LAYERS, REGISTRY, UsageError, trust_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lamella.builder.image.documents import Settings
    from lamella.builder.pushing.push import Pushed

SETTINGS = (IMAGE_PREFIX, BASE, COMPRESSION, MAX_LAYERS, *environment.SETTINGS, *REGISTRY)
DOCKER_LAYERS = 125
"""Layers that Docker's engine takes; containerd's clients take about as many."""
_DOES = {"build": "build and upload", "upload": "upload", "reuse": "nothing: it is there"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "reference", metavar="REFERENCE", help="registry/repository:tag, or oci:FOLDER:tag for a folder"
    )
    environment.add_to(parser)
    parser.add_argument("--dry-run", action="store_true", help="show what would be built and uploaded; change nothing")
    parser.add_argument("--append", action="store_true", help="keep what the tag names for other platforms")
    parser.add_argument("--sbom", action="store_true", help="attach a CycloneDX bill of materials")
    parser.add_argument(
        "--sign", metavar="KEY", help="sign it with this private key, as cosign does; its password is COSIGN_PASSWORD"
    )
    for setting in SETTINGS:
        setting.add_to(parser)
    image = parser.add_argument_group("what the runnable image does")
    image.add_argument("--entrypoint", metavar="COMMAND", help="its entry point, as one shell-quoted string")
    image.add_argument(
        "--cmd", metavar="COMMAND", help="its command, as one shell-quoted string (default: the base's, else python)"
    )
    image.add_argument("--env", metavar="NAME=VALUE", action="append", default=[], help="a variable; may be repeated")
    image.add_argument("--label", metavar="NAME=VALUE", action="append", default=[], help="a label; may be repeated")
    image.add_argument(
        "--annotation",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="an annotation of it and of the index, such as org.opencontainers.image.source; may be repeated",
    )
    image.add_argument(
        "--created",
        metavar="TIME",
        help="when it was made, such as 2026-01-31T12:00:00Z, or now (default: 1980, so that the same is the same)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Pushes; the reference, pinned to its digest, is the result."""
    from lamella.builder.errors import BuilderError
    from lamella.builder.layer.cache import LayerCache
    from lamella.builder.pushing.push import push_environment
    from lamella.cli.progress import shown
    from lamella.layers.oci.reference import Reference
    from lamella.layers.signing.keys import private_key

    settings = _image_settings(arguments)
    # A reference that can't be is said before an environment is looked at for seconds.
    Reference.parse(arguments.reference)
    signing_key = private_key(arguments.sign, os.environ.get("COSIGN_PASSWORD")) if arguments.sign else None
    began = time.monotonic()
    with shown(quiet=arguments.quiet) as progress:
        found = environment.scanned(arguments, progress)
        if objection := environment.objection(found, arguments.fail_on, arguments.strict, "lamella scan shows them"):
            raise BuilderError(f"nothing was pushed: {objection}")
        pushed = push_environment(
            found,
            arguments.reference,
            image_prefix=arguments.image_prefix,
            base=arguments.base,
            settings=settings,
            compression=arguments.compression,
            max_layers=arguments.max_layers,
            trust=trust_of(arguments),
            dry_run=arguments.dry_run,
            append=arguments.append,
            sbom=arguments.sbom,
            signing_key=signing_key,
            cache=LayerCache(arguments.cache),
            progress=progress,
        )
    took = time.monotonic() - began
    if arguments.json:
        result_json(document(pushed, took, dry_run=arguments.dry_run))
        return 0
    if arguments.dry_run:
        _show_plan(pushed)
    result(pushed.reference)
    for line in _remarks(pushed, took, dry_run=arguments.dry_run, most=arguments.max_layers):
        remark(line, quiet=arguments.quiet)
    return 0


def document(pushed: Pushed, took: float, *, dry_run: bool) -> dict[str, Any]:
    """What was pushed, or would be, as JSON."""
    severities = [finding.severity for finding in pushed.environment.findings]
    return {
        "reference": pushed.reference,
        "dry_run": dry_run,
        "unchanged": pushed.plan.unchanged,
        "platform": str(pushed.environment.platform),
        "packages": len(pushed.environment.packages),
        "built": {"layers": pushed.built},
        "reused": {"layers": pushed.reused},
        "base": {"layers": len(pushed.plan.base), "bytes": sum(layer.size for layer in pushed.plan.base)},
        "uploaded": {"layers": pushed.uploaded, "bytes": pushed.moved},
        "findings": {severity: severities.count(severity) for severity in findings.SEVERITIES},
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


def _remarks(pushed: Pushed, took: float, *, dry_run: bool, most: int) -> list[str]:
    packages = counted(len(pushed.environment.packages), "package")
    if dry_run:
        build, upload = pushed.plan.chosen("build"), pushed.plan.chosen("upload")
        lines = [
            (
                f"{packages}: {counted(len(build), 'layer')} to build and upload, {counted(len(upload), 'layer')} to upload "
                f"({size(pushed.plan.upload_size)}), {counted(pushed.reused, 'layer')} there already"
            )
        ]
        if base := pushed.plan.base:
            lines.append(
                f"{counted(len(base), 'layer')} of the base to take over ({size(sum(each.size for each in base))})"
            )
    elif pushed.plan.unchanged:
        lines = [f"{packages}: nothing changed, nothing uploaded; {seconds(took)}"]
    else:
        lines = [
            (
                f"{packages}: {counted(pushed.built, 'layer')} built, {counted(pushed.uploaded, 'layer')} uploaded, "
                f"{counted(pushed.reused, 'layer')} there already; {size(pushed.moved)} in {seconds(took)}"
            )
        ]
    if serious := findings.how_many(pushed.environment.findings, ("error", "warning")):
        lines.append(f"{serious} about this environment: lamella scan shows them")
    if most > DOCKER_LAYERS:
        lines.append(f"--max-layers is {most}, and Docker takes images of {DOCKER_LAYERS} layers at most")
    if pushed.unattached:
        lines.append(f"the findings are not attached to what was pushed: {pushed.unattached}")
    return lines


def _show_plan(pushed: Pushed) -> None:
    planned = [layer for layer in pushed.plan.layers if layer.action != "reuse"]
    if not planned:
        return
    table(
        (Column("Layer of", style="bold", shrinks=True), Column("To do"), Column("Files", "right")),
        [
            (_named(layer.wanted.packages), _DOES[layer.action], size(layer.wanted.size))
            for layer in sorted(planned, key=lambda layer: -layer.wanted.size)
        ],
    )
    result("")


def _named(packages: Sequence[str]) -> str:
    return packages[0] if len(packages) == 1 else f"{counted(len(packages), 'package')} in one, for the image"


def _image_settings(arguments: argparse.Namespace) -> Settings:
    from lamella.builder.image.documents import CREATED, Settings

    for flag, pairs in (
        ("--env", arguments.env),
        ("--label", arguments.label),
        ("--annotation", arguments.annotation),
    ):
        for pair in pairs:
            if not pair.partition("=")[0] or "=" not in pair:
                raise UsageError(f"{flag} is {pair!r}: want NAME=VALUE")
    created = arguments.created or CREATED
    if created == "now":
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Settings(
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
        raise UsageError(f"{flag} is {text!r}: {error}") from None
