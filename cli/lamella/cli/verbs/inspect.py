"""`lamella inspect`: show the packages, layers, findings and bill of materials of a reference."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lamella.cli import findings
from lamella.cli.output import Column, counted, result, result_json, size, table
from lamella.cli.settings import PLATFORM, REGISTRY, REQUIRE_SIGNATURE, trust_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lamella.layers.oci.documents import Layer
    from lamella.layers.oci.storage import Storage
    from lamella.layers.published.environment import Published, PublishedEnvironment
    from lamella.layers.published.findings import Finding
    from lamella.layers.published.shared_layers import Shared

SETTINGS = (PLATFORM, *REGISTRY, REQUIRE_SIGNATURE)
SBOM = "application/vnd.cyclonedx+json"
LARGEST = 20
"""Packages shown without --all: the rest is most of the lines and little of the size."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("reference", metavar="REFERENCE", help="registry/repository:tag@digest, or oci:FOLDER:tag")
    parser.add_argument("--sbom", action="store_true", help="print the attached bill of materials")
    parser.add_argument("--findings", action="store_true", help="show the findings attached by push")
    parser.add_argument("--verify", metavar="KEY", help="verify the signature with this public key first")
    parser.add_argument(
        "--all",
        action="store_true",
        help=f"show every package and finding (default: the {LARGEST} largest, and {findings.OF_ONE_KIND} findings of a kind)",
    )
    for setting in SETTINGS:
        setting.add_to(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read the manifests, without layers, and show them."""
    from lamella.layers.oci.documents import Platform
    from lamella.layers.oci.reference import Reference
    from lamella.layers.published.environment import for_platform, read_index
    from lamella.layers.storages import open_storage

    reference, trust = Reference.parse(arguments.reference), trust_of(arguments)
    if arguments.verify:
        from lamella.layers.signing.cosign import verify

        reference = Reference.parse(verify(arguments.reference, arguments.verify, trust=trust))
    with closing(open_storage(reference, trust)) as storage:
        published = read_index(storage, reference, trust)
        if arguments.platform:
            only = for_platform(published, Platform.parse(arguments.platform))
            published = replace(published, environments=(only,))
        if arguments.sbom:
            return _show_sbom(storage, published, arguments.platform)
        found, reason = _findings(storage, published, must=arguments.findings)
        others = None if arguments.findings else _shared(storage, published)
    if arguments.json:
        result_json(document(published, None if reason else found, others))
    elif arguments.findings:
        _show_findings(published, found, everything=arguments.all)
    else:
        _show(published, others, everything=arguments.all)
        how_many = findings.how_many([finding for _, finding in found])
        result(reason or (f"{how_many}: --findings shows them" if found else "no findings attached"))
    return 0


def _findings(storage: Storage, published: Published, *, must: bool) -> tuple[list[tuple[str, Finding]], str]:
    """Return the attached findings and an empty string, or the reason why they are unreadable.

    Raise that error instead if `must`.
    """
    from lamella.layers.errors import LayersError
    from lamella.layers.published.findings import attached

    try:
        return attached(storage, published.descriptor), ""
    except LayersError as error:
        if must:
            raise
        return [], f"findings not readable: {error}"


def _shared(storage: Storage, published: Published) -> Shared | None:
    """Return the other tags that share layers, or None if the registry does not list tags."""
    from lamella.layers.errors import LayersError
    from lamella.layers.published.shared_layers import shared

    layers = [layer.descriptor.digest for each in published.environments for layer in each.layers]
    try:
        return shared(storage, published.reference.tag, layers)
    except LayersError:
        return None


def _show_sbom(storage: Storage, published: Published, platform: str | None) -> int:
    """Print the bill of materials for `platform`; by default the only one, or this machine's."""
    from lamella.layers.errors import NotFound
    from lamella.layers.oci.documents import Platform
    from lamella.layers.oci.referrers import annotations_of, content_of, referrers
    from lamella.layers.published import findings

    found = {
        annotations_of(storage, referrer).get(findings.PLATFORM, ""): referrer
        for referrer in referrers(storage, published.descriptor, SBOM)
    }
    if not found:
        raise NotFound(f"{published.reference}: no bill of materials; attach one with lamella push --sbom")
    wanted = platform or (str(Platform.here()) if len(found) > 1 else next(iter(found)))
    if wanted not in found:
        available = ", ".join(sorted(found))
        raise NotFound(
            f"{published.reference}: no bill of materials for {wanted}; use --platform with one of {available}"
        )
    sys.stdout.write(content_of(storage, found[wanted]).decode())
    return 0


def _show_findings(published: Published, found: Sequence[tuple[str, Finding]], *, everything: bool) -> None:
    result(str(published.reference))
    for platform in sorted({platform for platform, _ in found}):
        result("")
        result(platform)
        findings.show([finding for where, finding in found if where == platform], everything=everything)
    if not found:
        result("no findings attached")


def document(
    published: Published, found: Sequence[tuple[str, Finding]] | None, others: Shared | None
) -> dict[str, Any]:
    """Return the contents as JSON; `found` and `others` are None if unknown."""
    return {
        "reference": str(published.reference),
        "digest": str(published.descriptor.digest),
        "platforms": [
            {
                "platform": str(environment.platform),
                "python": environment.python,
                "prefix": environment.prefix,
                "glibc": environment.glibc,
                "manifest": str(environment.descriptor.digest),
                "image": str(environment.image.digest) if environment.image else None,
                "size": sum(layer.descriptor.size for layer in environment.layers),
                "packages": [_package(layer, others) for layer in environment.layers],
            }
            for environment in published.environments
        ],
        "compared": None if others is None else list(others.compared),
        "findings": None
        if found is None
        else [{"platform": platform} | findings.document(finding) for platform, finding in found],
    }


def unpacked(layer: Layer) -> int:
    """Return the unpacked size of a layer in bytes, or 0 if it was not recorded."""
    from lamella.layers.oci.annotations import UNPACKED

    recorded = layer.descriptor.annotations.get(UNPACKED, "")
    return int(recorded) if recorded.isdecimal() else 0


def _package(layer: Layer, others: Shared | None) -> dict[str, Any]:
    from lamella.layers.oci.annotations import KEY, ORIGIN, PACKAGE, VERSION

    about = layer.descriptor.annotations
    return {
        "name": about.get(PACKAGE, ""),
        "version": about.get(VERSION, ""),
        "origin": about.get(ORIGIN, ""),
        "digest": str(layer.descriptor.digest),
        "diff_id": str(layer.diff_id),
        "size": layer.descriptor.size,
        "unpacked": unpacked(layer),
        "key": about.get(KEY, ""),
        "shared": None if others is None else list(others.tags.get(layer.descriptor.digest, ())),
    }


def _show(published: Published, others: Shared | None, *, everything: bool) -> None:
    result(str(published.reference))
    for environment in published.environments:
        result("")
        _show_environment(environment, others, everything=everything)


def _also_in(tags: Sequence[str]) -> str:
    return ", ".join(tags[:2]) + (f" and {len(tags) - 2} more" if len(tags) > 2 else "")


def _show_environment(environment: PublishedEnvironment, others: Shared | None, *, everything: bool) -> None:
    packages = sorted(
        (_package(layer, others) for layer in environment.layers), key=lambda item: (-item["size"], item["name"])
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
            Column("Layer", style="dim"),
            Column("Unpacked", "right"),
            *([Column("Also in", style="dim")] if compared else []),
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


def _alone(packages: Sequence[dict[str, Any]], others: Shared) -> str:
    """Return a sentence on the layers that only this tag has."""
    alone = [item for item in packages if not item["shared"]]
    what = f"{counted(len(alone), 'layer')} ({size(sum(item['size'] for item in alone))}) in no other tag"
    if not alone:
        what = "every layer is shared with another tag"
    rest = others.others - len(others.compared)
    return what + (f"; {rest} of {others.others} other tags not compared" if rest else "")
