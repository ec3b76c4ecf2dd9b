"""`lamella ls`: list the environments in the store, with their sizes alone and shared."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from lamella.cli.named_folders import existing_store
from lamella.cli.output import result, result_json, table
from lamella.cli.settings import STORE, add_settings
from lamella.cli.tables import Column
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    import argparse

    from lamella.layers import StoredEnvironment

SETTINGS = (STORE,)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """List the environments, the latest used first."""
    from lamella.layers import stored_environments

    store = existing_store(arguments)
    found = stored_environments(store)
    if arguments.json:
        result_json({"store": store.path, "environments": [document(each) for each in found]})
    else:
        _show(store.path, found)
    return 0


def document(each: StoredEnvironment) -> dict[str, Any]:
    """Return an environment of the store as JSON."""
    environment = each.environment
    return {
        "references": list(each.names),
        "digest": str(each.digest),
        "platform": str(environment.platform),
        "python": environment.python,
        "prefix": environment.prefix,
        "layers": len(environment.layers),
        "missing_layers": each.missing,
        "bytes": each.bytes,
        "alone_bytes": each.alone,
        "shared_bytes": each.shared,
        "used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(each.used)),
        "in_use": list(each.users),
    }


def _rows(each: StoredEnvironment) -> list[tuple[str, ...]]:
    """Return a row for the latest name, and one for each other name, whose sizes and uses would count twice."""
    names = each.names[::-1] or ("",)
    known = (each.digest.hex[:12], each.environment.python)
    uses = (
        size(each.bytes),
        size(each.alone),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(each.used)),
        # The row names the environment.
        "; ".join(re.sub(r"@sha\d+:[0-9a-f]+", "", user) for user in each.users),
    )
    return [(names[0], *known, *uses), *((name, *known, "", "", "", "") for name in names[1:])]


def _show(path: str, found: tuple[StoredEnvironment, ...]) -> None:
    if not found:
        result(f"no environments in {path}")
        return
    table(
        (
            Column("Environment", style="bold", shrinks=True),
            # The name of an environment whose tag was moved.
            Column("Digest", style="dim", spare=all(each.names for each in found)),
            Column("Python", spare=True),
            Column("Size", "right"),
            Column("Alone", "right"),
            Column("Used"),
            Column("In use by", shrinks=True),
        ),
        [row for each in found for row in _rows(each)],
    )
    result("")
    result(f"{counted(len(found), 'environment')} in {path}; Alone is in no other environment of the store")
    if lacking := [each for each in found if each.missing]:
        result(f"{len(lacking)} of them with missing layers, which the next pull or run downloads")
