"""`lamella inspect`: show the packages, layers, findings and bill of materials of a reference."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from lamella.cli import findings
from lamella.cli.modes import Mode, flags_of
from lamella.cli.output import result, result_json, table
from lamella.cli.settings import PLATFORM, STORE, TRUST, add_settings, platform_of, trust_of
from lamella.cli.tables import Column
from lamella.cli.verbs import artifacts
from lamella.layers.text import counted, escaped_json, size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lamella.layers import (
        Inspection,
        LayerFiles,
        Platform,
        PublishedEnvironment,
        PublishedPackage,
        SharedLayers,
        Trust,
    )

SETTINGS = (PLATFORM, STORE, *TRUST)
MODES = (
    Mode("--sbom", flags_of("--verify --platform", TRUST)),
    Mode("--files", flags_of("--verify --platform --store", TRUST)),
    Mode("--findings", flags_of("--verify --platform --all", TRUST)),
    Mode("", flags_of("--verify --platform --all", TRUST)),
)
LARGEST = 20
"""Packages shown without --all: the rest is most of the lines and little of the size."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("reference", metavar="REFERENCE", help="registry/repository:tag@digest, or oci:FOLDER:tag")
    parser.add_argument("--sbom", action="store_true", help="print the attached bill of materials")
    parser.add_argument("--findings", action="store_true", help="show the findings attached by push")
    parser.add_argument(
        "--files",
        nargs="?",
        const="",
        metavar="PACKAGE",
        help="list the files in a package's layer, or in every layer; reads the layers that the store lacks",
    )
    parser.add_argument("--verify", metavar="KEY", help="verify the signature with this public key first")
    parser.add_argument(
        "--all",
        action="store_true",
        help=f"show every package and finding (default: the {LARGEST} largest, and {findings.OF_ONE_KIND} findings of a kind)",
    )
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Read the manifests, without layers, and show them."""
    from lamella.layers import LayersError, inspect, sbom, verify_signature

    reference, trust = arguments.reference, trust_of(arguments)
    platform = platform_of(arguments)
    if arguments.verify:
        reference = verify_signature(reference, arguments.verify, trust=trust)
    if arguments.sbom:
        text = sbom(reference, platform=platform, trust=trust)
        if arguments.json:
            result_json({"reference": reference, "sbom": json.loads(text)})
        else:
            sys.stdout.write(escaped_json(text))
        return 0
    if arguments.files is not None:
        return _files(reference, arguments, platform, trust)
    inspected = inspect(reference, platform=platform, compare=not arguments.findings, trust=trust)
    if arguments.findings and inspected.findings_error:
        raise LayersError(inspected.findings_error)
    if arguments.json:
        result_json(document(inspected))
    elif arguments.findings:
        _show_findings(inspected, everything=arguments.all)
    else:
        _show(inspected, everything=arguments.all)
        how_many = findings.how_many([finding for _, finding in inspected.findings])
        attached = f"{how_many}: --findings shows them" if how_many else "no findings attached"
        why_not = inspected.findings_error
        result(f"findings not readable: {why_not}" if why_not else attached)
        _show_attached(inspected)
    return 0


def _files(reference: str, arguments: argparse.Namespace, platform: Platform | None, trust: Trust) -> int:
    from lamella.cli import files
    from lamella.cli.progress import shown
    from lamella.layers import Store, layer_files

    store = Store(arguments.store) if arguments.store else None
    with shown(quiet=arguments.quiet) as progress:
        listed = layer_files(reference, arguments.files, platform=platform, store=store, trust=trust, progress=progress)
    if arguments.json:
        result_json({"reference": reference, "packages": [_listed(each) for each in listed]})
        return 0
    for number, each in enumerate(listed):
        package = each.package
        where = "from the store" if each.is_stored else "from its blob"
        if number:
            result("")
        rows = [
            files.Row(file.path, file.size, f"-> {file.link}" if file.link is not None else "") for file in each.files
        ]
        files.show(
            f"{package.name} {package.version}".rstrip(),
            package.origin,
            rows,
            f"layer {package.layer.descriptor.digest.short}, {where}",
        )
    return 0


def _listed(each: LayerFiles) -> dict[str, Any]:
    return {
        "name": each.package.name,
        "version": each.package.version,
        "origin": each.package.origin,
        "digest": str(each.package.layer.descriptor.digest),
        "from_store": each.is_stored,
        "files": [
            {"path": file.path, "size": file.size, "executable": file.executable, "link": file.link}
            for file in each.files
        ],
    }


def _show_findings(inspected: Inspection, *, everything: bool) -> None:
    result(inspected.reference)
    for platform in sorted({platform for platform, _ in inspected.findings}):
        result("")
        result(platform)
        of_platform = [finding for where, finding in inspected.findings if where == platform]
        findings.show(of_platform, everything=everything)
    if not inspected.findings:
        result("no findings attached")


def _show_attached(inspected: Inspection) -> None:
    """Print who signed it, and a table of everything attached."""
    if inspected.attached_error:
        result(f"signatures and attached artifacts not readable: {inspected.attached_error}")
        return
    for signature in inspected.signatures:
        checked = "verified" if signature.verified else "not verified: --require-signature KEY verifies it"
        names = f", names {signature.identity}" if signature.identity else ""
        result(f"signed by key {signature.key or 'unknown'} ({checked}){names}")
    if not inspected.signatures:
        result("not signed")
    if inspected.artifacts:
        result("")
        artifacts.show(inspected.artifacts)


def document(inspected: Inspection) -> dict[str, Any]:
    """Return the contents as JSON; null stands for anything that could not be read."""
    shared = inspected.shared
    return {
        "reference": inspected.reference,
        "digest": str(inspected.digest),
        "platforms": [
            {
                "platform": str(environment.platform),
                "python": environment.python,
                "prefix": environment.prefix,
                "glibc": environment.glibc,
                "manifest": str(environment.descriptor.digest),
                "image": str(environment.image.digest) if environment.image else None,
                "size": sum(package.size for package in environment.packages),
                "packages": [_package(package, shared) for package in environment.packages],
            }
            for environment in inspected.environments
        ],
        "compared": None if shared is None else list(shared.compared),
        "signatures": None
        if inspected.attached_error
        else [
            {"key": signature.key, "verified": signature.verified, "identity": signature.identity}
            for signature in inspected.signatures
        ],
        "artifacts": None if inspected.attached_error else [artifacts.document(each) for each in inspected.artifacts],
        "findings": None
        if inspected.findings_error
        else [{"platform": platform} | findings.document(finding) for platform, finding in inspected.findings],
    }


def _package(package: PublishedPackage, shared: SharedLayers | None) -> dict[str, Any]:
    digest = package.layer.descriptor.digest
    return {
        "name": package.name,
        "version": package.version,
        "origin": package.origin,
        "digest": str(digest),
        "diff_id": str(package.layer.diff_id),
        "size": package.size,
        "unpacked": package.unpacked,
        "key": package.key,
        "shared": None if shared is None else list(shared.tags.get(digest, ())),
    }


def _show(inspected: Inspection, *, everything: bool) -> None:
    result(inspected.reference)
    for environment in inspected.environments:
        result("")
        _show_environment(environment, inspected.shared, everything=everything)


def _also_in(tags: Sequence[str]) -> str:
    return ", ".join(tags[:2]) + (f" and {len(tags) - 2} more" if len(tags) > 2 else "")


def _show_environment(environment: PublishedEnvironment, others: SharedLayers | None, *, everything: bool) -> None:
    packages = sorted(
        (_package(package, others) for package in environment.packages), key=lambda item: (-item["size"], item["name"])
    )
    compared = bool(others and others.compared)
    count = len(packages) if everything else LARGEST
    needs = f", requires glibc {environment.glibc}" if environment.glibc else ""
    result(f"Python {environment.python} at {environment.prefix} on {environment.platform}{needs}")
    result("")
    table(
        (
            Column("Package", style="bold"),
            Column("Version"),
            Column("Origin", style="cyan"),
            Column("Layer", style="dim", spare=True),
            Column("Unpacked", "right"),
            *([Column("Also in", style="dim", spare=True)] if compared else []),
            Column("Size", "right"),
            Column("", bar=True),
        ),
        [
            (
                item["name"],
                item["version"],
                item["origin"],
                item["digest"].partition(":")[2][:12],
                size(item["unpacked"]),
                *([_also_in(item["shared"])] if compared else []),
                size(item["size"]),
                str(item["size"] / max(1, packages[0]["size"])),
            )
            for item in packages[:count]
        ],
    )
    if rest := packages[count:]:
        result(f"… and {len(rest)} more ({size(sum(item['size'] for item in rest))}): --all shows them")
    result("")
    moved = sum(item["size"] for item in packages)
    on_disk = sum(item["unpacked"] for item in packages)
    result(f"{counted(len(packages), 'layer')}, {size(moved)} to download, {size(on_disk)} unpacked")
    if others and others.compared:
        result(_alone(packages, others))


def _alone(packages: Sequence[dict[str, Any]], others: SharedLayers) -> str:
    """Return a sentence on the layers that only this tag has."""
    alone = [item for item in packages if not item["shared"]]
    what = f"{counted(len(alone), 'layer')} ({size(sum(item['size'] for item in alone))}) in no other tag"
    if not alone:
        what = "every layer is shared with another tag"
    rest = others.others - len(others.compared)
    return what + (f"; {rest} of {others.others} other tags not compared" if rest else "")
