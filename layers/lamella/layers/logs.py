"""Records of requests and decisions, by the standard `logging`, if the program has imported it.

A program that has not has no handler either: a start does not import logging for records that nothing reads. Records have
the level DEBUG, a logger named after the room (`lamella.layers.registry`), and `fields`, a mapping, as an attribute.
No record holds a header, a query, a user or a password.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging


def record(room: str, message: str, **fields: object) -> None:
    """Record `message` with `fields` for the logger `room`, if that logger is enabled."""
    if logger := _listened(room):
        logger.debug("%s", message, extra={"fields": fields})


def listened(room: str) -> bool:
    """Whether a record for `room` would be handled, for records that cost something to make."""
    return _listened(room) is not None


def _listened(room: str) -> logging.Logger | None:
    module = sys.modules.get("logging")
    if module is None:
        return None
    logger: logging.Logger = module.getLogger(room)
    return logger if logger.isEnabledFor(module.DEBUG) else None
