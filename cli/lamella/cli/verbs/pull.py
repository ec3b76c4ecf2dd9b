"""`lamella pull`: download and unpack the layers that the store lacks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lamella.cli.modes import Mode, flags_of
from lamella.cli.output import remark, result, result_json, table
from lamella.cli.settings import ELSEWHERE, PLATFORM, STORE, TRUST, add_settings, platform_of, trust_of
from lamella.cli.tables import Column
from lamella.layers.text import counted, seconds, size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from lamella.layers import Layer, PublishedEnvironment, Pulled

SETTINGS = (STORE, PLATFORM, ELSEWHERE, *TRUST)
MODES = (
    Mode("--platform", flags_of("--dry-run --store", TRUST)),
    Mode("", flags_of("--dry-run --store --elsewhere", TRUST)),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("reference", metavar="REFERENCE", help="registry/repository:tag@digest, or oci:FOLDER:tag")
    parser.add_argument("--dry-run", action="store_true", help="show what would be downloaded; change nothing")
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Pull, and print the reference pinned to its digest."""
    return execute(arguments)


def would(arguments: argparse.Namespace, **fields: object) -> int:
    """Show what another verb would download. `fields` are that verb's own in the JSON document."""
    return execute(arguments, fields)


def execute(arguments: argparse.Namespace, fields: Mapping[str, object] | None = None) -> int:
    """Pull; with `fields`, for a dry run of another verb."""
    from lamella.cli.progress import shown
    from lamella.layers import Store, pull, unmet_needs

    store = Store(arguments.store)

    def warn(environment: PublishedEnvironment) -> None:
        # A warning, not an error: a store may be filled for other machines, as --platform does.
        if arguments.platform is None:
            for sentence in unmet_needs(environment, elsewhere=bool(getattr(arguments, "elsewhere", False))):
                remark(f"lamella: {sentence}", quiet=arguments.quiet)

    began = time.monotonic()
    with shown(quiet=arguments.quiet) as progress:
        pulled = pull(
            arguments.reference,
            store=store,
            platform=platform_of(arguments),
            trust=trust_of(arguments),
            dry_run=arguments.dry_run,
            progress=progress,
            check=warn,
        )
    took = time.monotonic() - began
    if arguments.json:
        value = document(pulled, store.path, took, dry_run=arguments.dry_run)
        result_json(value if fields is None else planned(value, fields))
        return 0
    plan = pulled.plan
    if arguments.dry_run:
        show_plan(plan.fetch)
    result(pulled.reference)
    stored = f"{len(plan.present)} of {counted(len(plan.present) + len(plan.fetch), 'layer')} already in {store.path}"
    if arguments.dry_run:
        remark(f"{stored}; {counted(len(plan.fetch), 'layer')} to download, {size(plan.bytes)}", quiet=arguments.quiet)
    else:
        remark(
            f"{stored}; {counted(len(plan.fetch), 'layer')} downloaded, {size(pulled.moved)} in {seconds(took)}",
            quiet=arguments.quiet,
        )
    return 0


def show_plan(layers: tuple[Layer, ...]) -> None:
    """Print a table of the layers to download, largest first."""
    from lamella.layers import PublishedPackage

    if layers:
        table(
            (
                Column("To download", style="bold"),
                Column("Version"),
                Column("Layer", style="dim", spare=True),
                Column("Size", "right"),
            ),
            [
                (package.name, package.version, package.layer.descriptor.digest.short, size(package.size))
                for package in map(PublishedPackage.of, layers)
            ],
        )


def planned(plan: Mapping[str, Any], fields: Mapping[str, object]) -> dict[str, Any]:
    """Return the dry run of a verb that downloads missing layers as JSON."""
    shared = {"reference": plan["reference"], "dry_run": True}
    return {**shared, **fields, "plan": {name: value for name, value in plan.items() if name not in shared}}


def document(pulled: Pulled, store: str, took: float, *, dry_run: bool) -> dict[str, Any]:
    """Return a pull, or its plan, as JSON."""
    from lamella.layers import PublishedPackage

    plan = pulled.plan
    return {
        "reference": pulled.reference,
        "platform": str(pulled.environment.platform),
        "store": store,
        "dry_run": dry_run,
        "downloaded": {"layers": 0 if dry_run else len(plan.fetch), "bytes": pulled.moved},
        "present": {"layers": len(plan.present), "bytes": sum(layer.descriptor.size for layer in plan.present)},
        "missing": [
            {
                "name": package.name,
                "version": package.version,
                "digest": str(package.layer.descriptor.digest),
                "diff_id": str(package.layer.diff_id),
                "size": package.size,
            }
            for package in map(PublishedPackage.of, plan.fetch)
        ],
        "seconds": round(took, 3),
    }
