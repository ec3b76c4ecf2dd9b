"""Findings of a scan, as attached to a pushed environment. See docs/reference/findings.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lamella.layers.attaching.listing import FINDINGS
from lamella.layers.errors import InvalidContent
from lamella.layers.oci.parsing import fields, list_of, parse_object, text_of
from lamella.layers.oci.referrers import MOST, content_of, referrers

if TYPE_CHECKING:
    from lamella.layers.oci.documents import Descriptor
    from lamella.layers.oci.storage import Storage

Severity = Literal["error", "warning", "note"]
ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}
"""The worst first."""
MEDIA_TYPE = FINDINGS


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the environment that its user should know."""

    severity: Severity
    kind: str
    """One word of the reference page of findings, such as `patched`, `missing`, `unowned`, `secret`, `links`."""
    subject: str
    """The package or file it is about."""
    message: str
    """One sentence: the problem, and its consequence or what to do."""


def attached(storage: Storage, subject: Descriptor) -> list[tuple[str, Finding]]:
    """Return the findings attached to the index `subject`, each with its platform; the worst first.

    Reads the findings of everyone who pushed this index: they differ if files that do not ship differ. Raises
    `InvalidContent` for a document that is not a list of findings, and what the storage raises.
    """
    found = {
        (platform, finding)
        for referrer in referrers(storage, subject, MEDIA_TYPE)[-MOST:]
        for platform, finding in _read(content_of(storage, referrer), f"the list of findings {referrer.digest}")
    }
    return sorted(found, key=lambda item: (item[0], ORDER[item[1].severity], item[1].kind, item[1].message))


def _read(content: bytes, name: str) -> list[tuple[str, Finding]]:
    document = parse_object(content, name)
    try:
        platform = text_of(document, "platform")
        return [(platform, _finding(item)) for item in list_of(document, "findings")]
    except InvalidContent as error:
        raise InvalidContent(f"{name}: {error}") from None


def _finding(value: object) -> Finding:
    item = fields(value, "a finding")
    severity = next((each for each in ORDER if each == item.get("severity")), None)
    if severity is None:
        raise InvalidContent("'severity' is not error, warning or note")
    return Finding(severity, text_of(item, "kind"), text_of(item, "subject"), text_of(item, "message"))
