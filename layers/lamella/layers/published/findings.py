"""What was found when an environment was scanned, as it is attached to what was pushed. See docs/reference/findings.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lamella.layers.errors import InvalidContent
from lamella.layers.oci.referrers import content_of, referrers

if TYPE_CHECKING:
    from lamella.layers.oci.documents import Descriptor
    from lamella.layers.oci.storage import Storage

Severity = Literal["error", "warning", "note"]
ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}
"""The worst first."""
MEDIA_TYPE = "application/vnd.lamella.findings.v1+json"
PLATFORM = "dev.lamella.platform"
"""Annotation: of which of an index's environments these are the findings."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the environment that its user should know."""

    severity: Severity
    kind: str
    """One word of the reference page of findings, such as `patched`, `missing`, `unowned`, `secret`, `links`."""
    subject: str
    """The package or file it is about."""
    message: str
    """One sentence: what is so, and what follows or what to do."""


def attached(storage: Storage, subject: Descriptor) -> list[tuple[str, Finding]]:
    """The findings that are attached to the index `subject`, each with its platform; the worst first.

    Those of everybody who pushed this very index: what was found differs where what does not ship differs. Raises
    `InvalidContent` for a document that is none, and what the storage raises.
    """
    found = {
        (platform, finding)
        for referrer in referrers(storage, subject, MEDIA_TYPE)
        for platform, finding in _read(content_of(storage, referrer), referrer)
    }
    return sorted(found, key=lambda item: (item[0], ORDER[item[1].severity], item[1].kind, item[1].message))


def _read(content: bytes, referrer: Descriptor) -> list[tuple[str, Finding]]:
    try:
        value = json.loads(content)
        found = [
            Finding(item["severity"], str(item["kind"]), str(item["subject"]), str(item["message"]))
            for item in value["findings"]
        ]
        if not all(finding.severity in ORDER for finding in found):
            raise ValueError
        return [(str(value["platform"]), finding) for finding in found]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise InvalidContent(f"{referrer.digest}: attached as findings, but not a list of findings") from None
