"""`lamella verify`: check the store's layers against their diff_ids, or a reference in its registry or layout folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.cli.modes import Mode, flags_of
from lamella.cli.named_folders import existing_store
from lamella.cli.output import remark, result, result_json, table
from lamella.cli.settings import STORE, TRUST, add_settings, trust_of
from lamella.cli.tables import Column
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    import argparse

SETTINGS = (STORE, *TRUST)
MODES = (Mode("REFERENCE", flags_of("--deep", TRUST)), Mode("", flags_of("--dry-run --store")))


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "reference",
        nargs="?",
        metavar="REFERENCE",
        help="registry/repository:tag@digest, or oci:FOLDER:tag (default: the store on this machine)",
    )
    parser.add_argument(
        "--deep",
        action="store_true",
        help="of a reference, read each blob too (default: only documents; blobs are asked for)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="of the store, keep damaged layers (default: remove them; the next pull restores them)",
    )
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Verify the store or the reference. The exit code is 1 if something is damaged or missing."""
    if arguments.reference:
        return _reference(arguments)
    return _store(arguments)


def _reference(arguments: argparse.Namespace) -> int:
    from lamella.cli.progress import shown
    from lamella.layers import verify_reference

    with shown(quiet=arguments.quiet) as progress:
        verified = verify_reference(
            arguments.reference, deep=arguments.deep, trust=trust_of(arguments), progress=progress
        )
    if arguments.json:
        result_json(
            {
                "reference": verified.reference,
                "deep": arguments.deep,
                "documents": verified.documents,
                "blobs": verified.blobs,
                "bytes": verified.bytes,
                "faults": [
                    {"digest": str(fault.digest), "what": fault.what, "reason": fault.reason}
                    for fault in verified.faults
                ],
                "heal": verified.heal or None,
            }
        )
        return 1 if verified.faults else 0
    result(verified.reference)
    if verified.faults:
        table(
            (Column("Digest", style="red"), Column("What"), Column("Reason", shrinks=True)),
            [(fault.digest.short, fault.what, fault.reason) for fault in verified.faults],
        )
        result(f"to repair: {verified.heal}")
    looked_at = f"{counted(verified.documents, 'document')} read, {counted(verified.blobs, 'blob')}"
    how = "read" if arguments.deep else "asked for"
    outcome = f"{len(verified.faults)} damaged or missing" if verified.faults else "all intact"
    remark(f"{looked_at} {how} ({size(verified.bytes)}): {outcome}", quiet=arguments.quiet)
    return 1 if verified.faults else 0


def _store(arguments: argparse.Namespace) -> int:
    from lamella.cli.progress import shown
    from lamella.cli.verbs import require_linux
    from lamella.layers import verify

    require_linux("verify")
    store = existing_store(arguments)
    with shown(quiet=arguments.quiet) as progress:
        verified = verify(store, remove=not arguments.dry_run, progress=progress)
    if arguments.json:
        result_json(
            {
                "store": store.path,
                "layers": verified.layers,
                "damaged": [
                    {
                        "diff_id": str(damage.diff_id) if damage.diff_id else None,
                        "tree": damage.tree or None,
                        "reason": damage.reason,
                        "removed": damage.removed,
                    }
                    for damage in verified.damaged
                ],
            }
        )
    elif verified.damaged:
        table(
            (Column("Damaged", style="red"), Column("Removed"), Column("Reason", shrinks=True)),
            [
                (
                    damage.diff_id.short if damage.diff_id else damage.tree,
                    "yes" if damage.removed else "no",
                    damage.reason,
                )
                for damage in verified.damaged
            ],
        )
    damaged = f"{len(verified.damaged)} damaged" if verified.damaged else "all intact"
    remark(f"{counted(verified.layers, 'layer')} in {store.path}: {damaged}", quiet=arguments.quiet or arguments.json)
    return 1 if verified.damaged else 0
