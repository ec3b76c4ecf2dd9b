"""The findings document attached to a push, without paths of the machine that pushed.

It has every finding of the scan. Notes too: they explain to a user of a node why a file ships as it
does. The same environment gives the same bytes: no time, no user name.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from lamella.builder.files import prefix_pattern
from lamella.layers.oci.annotations import PLATFORM
from lamella.layers.oci.documents import canonical_json
from lamella.layers.oci.referrers import Artifact
from lamella.layers.published.findings import MEDIA_TYPE, ORDER, Finding
from lamella.layers.settings.homes import home

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.builder.environment import Environment

HIDDEN = "…"
"""Replaces a path of the machine that pushed."""

_MOST = 3 << 20
"""Maximum bytes of findings to attach: registries and readers accept documents up to 4 MiB."""
_PREFIX = "\0"
# Start of a path outside the environment: at the root, in a home folder, or above the environment's folder.
_PATH = re.compile(r"(?<![\w.~@+)\]\-\0/])/(?=\S)|(?<!\w)~[\w.-]*/|(?<![\w.])\.\./")


def artifact(environment: Environment, image_prefix: str) -> Artifact | None:
    """Return the document to attach for `environment`, or None without findings."""
    found = _told(environment, image_prefix)
    if not found:
        return None
    severities = [finding.severity for finding in environment.findings]
    platform = str(environment.platform)
    content = canonical_json(
        {
            "platform": platform,
            "counts": {severity: severities.count(severity) for severity in ORDER},
            "findings": [
                {"severity": each.severity, "kind": each.kind, "subject": each.subject, "message": each.message}
                for each in found
            ],
        }
    )
    return Artifact(MEDIA_TYPE, content, {PLATFORM: platform})


def _told(environment: Environment, image_prefix: str) -> list[Finding]:
    """Findings without paths of this machine, the worst first, as many as fit."""
    tell = _Teller(environment, image_prefix)
    found = {Finding(each.severity, each.kind, tell(each.subject), tell(each.message)) for each in environment.findings}
    ordered = sorted(found, key=lambda each: (ORDER[each.severity], each.kind, each.subject, each.message))
    return list(_fitting(ordered))


def _fitting(findings: Iterable[Finding]) -> Iterable[Finding]:
    room = _MOST
    for finding in findings:
        room -= len((finding.subject + finding.message).encode()) + 100
        if room < 0:
            return
        yield finding


class _Teller:
    """Replaces the prefix by the image prefix in a text, and cuts the text at any other absolute path.

    Cut, since a path with spaces in it has no visible end.
    """

    def __init__(self, environment: Environment, image_prefix: str) -> None:
        own = (os.fsencode(environment.prefix), *environment.prefixes)
        self._own = prefix_pattern.pattern(tuple(dict.fromkeys(own)))
        own_home = home()
        self._homes = {spelled for spelled in (own_home, os.path.realpath(own_home)) if own_home and len(spelled) > 1}
        self._image_prefix = image_prefix

    def __call__(self, text: str) -> str:
        marked = self._own.sub(_PREFIX.encode(), text.replace(_PREFIX, "").encode("utf-8", "surrogateescape"))
        shown = marked.decode("utf-8", "surrogateescape")
        ends = [match.start() for match in [_PATH.search(shown)] if match]
        ends += [shown.index(home) for home in self._homes if home in shown]
        if ends:
            shown = shown[: min(ends)] + HIDDEN
        shown = shown.replace(_PREFIX, self._image_prefix)
        # JSON cannot hold a name that is not UTF-8: write its bytes as escapes.
        return shown.encode("utf-8", "backslashreplace").decode()
