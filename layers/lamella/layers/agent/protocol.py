"""The answer of an agent, as values: JSON with `version`, like the documents of `--json`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

from lamella.layers.errors import (
    Busy,
    Denied,
    InvalidContent,
    InvalidReference,
    LayersError,
    NoSpace,
    NotFound,
    NotSigned,
    PolicyError,
    Unreachable,
    Unsupported,
)
from lamella.layers.oci.parsing import parse_object

STATUSES: dict[type[LayersError], int] = {
    InvalidReference: 400,
    PolicyError: 403,
    NotSigned: 403,
    NotFound: 404,
    Unsupported: 422,
    Denied: 502,
    Unreachable: 502,
    InvalidContent: 502,
    Busy: 503,
    NoSpace: 507,
}
"""The HTTP status of each error; 500 for any other. 502 is the registry's fault."""
_ERRORS = {kind.code: kind for kind in STATUSES}


def status_of(error: BaseException) -> int:
    """Return the HTTP status of an error."""
    return next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 500)


def error_of(code: str, message: str) -> LayersError:
    """Return the error of a code in a failure's document."""
    return _ERRORS.get(code, LayersError)(message)


@dataclass(frozen=True, slots=True)
class NodeEnvironment:
    """An environment that the agent has mounted."""

    reference: str
    """Pinned by digest."""
    digest: str
    path: str
    """Folder on the node, read-only."""
    prefix: str
    """Path at which programs must see it."""

    def to_json(self) -> str:
        """Return the answer to `POST /environments`."""
        return json.dumps({"version": 1, **asdict(self)})

    @classmethod
    def parse(cls, answer: bytes) -> NodeEnvironment:
        """Return the environment of an answer. Raises `InvalidContent`."""
        document = parse_object(answer, "the agent's answer")
        reference, digest, path, prefix = (document.get(name) for name in ("reference", "digest", "path", "prefix"))
        # Each on its own, so that types are known.
        if not (isinstance(reference, str) and isinstance(digest, str)):
            raise InvalidContent("the agent's answer has no digest; update the agent")
        if not (isinstance(path, str) and isinstance(prefix, str) and os.path.isabs(path)):
            raise InvalidContent("the agent's answer names no folder; update the agent")
        return cls(reference, digest, path, prefix)
