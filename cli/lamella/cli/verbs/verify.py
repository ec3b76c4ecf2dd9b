"""`lamella verify`: check the store's layers, and trees derived from them, against their diff_ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.cli.output import Column, remark, result_json, table
from lamella.cli.settings import STORE, add_settings
from lamella.layers.text import counted

if TYPE_CHECKING:
    import argparse

SETTINGS = (STORE,)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "--dry-run", action="store_true", help="keep damaged layers (default: remove them; the next pull restores them)"
    )
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Verify the store. The exit code is 1 if a layer is damaged."""
    from lamella.cli.progress import shown
    from lamella.layers import Store, verify

    store = Store(arguments.store)
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
