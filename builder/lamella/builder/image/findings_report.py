"""The findings of a push, as the document that is attached to it: what its readers may know, and nothing of this machine.

Everything that the scan said is in it, notes too: a note says of a file why it ships as it does, and whoever debugs a node has
no other way to learn that. The same environment gives the same bytes: no time, no name of who pushed.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from lamella.builder.files import prefix_pattern
from lamella.layers.homes import home
from lamella.layers.oci.documents import canonical_json
from lamella.layers.oci.referrers import Artifact
from lamella.layers.published.findings import MEDIA_TYPE, ORDER, PLATFORM, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.builder.environment import Environment

HIDDEN = "…"
"""Stands for a path of the machine that pushed."""

_MOST = 3 << 20
"""Bytes of findings that are attached: registries and readers take documents of 4 MiB."""
_PREFIX = "\0"
# A path that begins nowhere in the environment: at the root, in a home folder, or above a folder of the environment.
_PATH = re.compile(r"(?<![\w.~@+)\]\-\0/])/(?=\S)|(?<!\w)~[\w.-]*/|(?<![\w.])\.\./")


def artifact(environment: Environment, image_prefix: str) -> Artifact | None:
    """What to attach for `environment`; None where nothing was found."""
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
    """The findings as they may be told, the worst first, as many as fit."""
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
    """Says a text of this machine as one of the image: a path below the prefix by the image prefix, no other path at all.

    A text ends where another path begins, since nobody can say where one with spaces in it ends.
    """

    def __init__(self, environment: Environment, image_prefix: str) -> None:
        own = (os.fsencode(environment.prefix), *environment.prefixes)
        self._own = prefix_pattern.pattern(tuple(dict.fromkeys(own)))
        own_home = home()
        self._homes = {spelled for spelled in (own_home, os.path.realpath(own_home)) if own_home and len(spelled) > 1}
        self._image_prefix = image_prefix

    def __call__(self, text: str) -> str:
        marked = self._own.sub(_PREFIX.encode(), text.replace(_PREFIX, "").encode("utf-8", "surrogateescape"))
        said = marked.decode("utf-8", "surrogateescape")
        ends = [match.start() for match in [_PATH.search(said)] if match]
        ends += [said.index(home) for home in self._homes if home in said]
        if ends:
            said = said[: min(ends)] + HIDDEN
        said = said.replace(_PREFIX, self._image_prefix)
        # A name that is no UTF-8 has its bytes as escapes: JSON has no other way to say them.
        return said.encode("utf-8", "backslashreplace").decode()
