"""Records of requests and decisions on stderr, for `--verbose` and `LAMELLA_LOG`; the only handler of Lamella's loggers."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

from lamella.cli.redaction import without_user
from lamella.layers.text import escaped


class _Handler(logging.Handler):
    """Write one line for each record to the stderr of that moment."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record`."""
        fields: dict[str, object] = getattr(record, "fields", {})
        if self._as_json:
            line = document(record.levelname, record.name, record.getMessage(), fields)
        else:
            line = f"lamella: {escaped(without_user(record.getMessage()))}"
        # One write: print makes two, and another thread's line may come between them.
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def start(*, as_json: bool) -> None:
    """Write every record of Lamella's loggers from now on."""
    logger = logging.getLogger("lamella")
    for handler in [each for each in logger.handlers if isinstance(each, _Handler)]:
        logger.removeHandler(handler)
    logger.addHandler(_Handler(as_json=as_json))
    logger.setLevel(logging.DEBUG)
    logger.propagate = False


def document(level: str, name: str, message: str, fields: dict[str, object] | None = None) -> str:
    """Return a record as one line of JSON."""
    now = time.time()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03}Z"
    value = {"time": moment, "level": level.lower(), "logger": name, "message": message, **(fields or {})}
    return without_user(json.dumps(value))


def say(line: str, to: TextIO) -> None:
    """Write a remark as a record, for `LAMELLA_LOG=json`."""
    to.write(f"{document('info', 'lamella.cli', line)}\n")
    to.flush()
