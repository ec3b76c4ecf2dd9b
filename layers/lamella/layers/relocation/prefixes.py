"""Prefixes that files can name, and how they are recognised there."""

from __future__ import annotations

import re

_OF_ALL = re.compile(
    "/|/(?:bin|dev|etc|home|lib|lib64|opt|proc|root|run|sbin|sys|tmp|var|var/tmp)|/usr(?:/local)?(?:/(?:bin|lib|sbin|share))?"
)


class CannotRelocate(Exception):
    """A file or a prefix that can't be changed as requested; the message names it."""


def pattern(prefix: bytes, *, slashes: bool = False) -> re.Pattern[bytes]:
    """Matches `prefix` as a whole path: the packer's rule (lamella.builder.files.prefix_pattern), which a test holds equal.

    With `slashes`, those in front of it too.
    """
    if slashes:
        before = rb"(?:(?<![\w.~+\-/\x80-\xff])|(?<=-[A-Za-z])|(?<=://)|(?<=[^\w.~+\-/\x80-\xff]\.))/*"
        whole = before + re.escape(prefix)
    else:
        before = rb"%b(?:(?<![\w.~+\-/\x80-\xff]%b)|(?<=-[A-Za-z]%b)|(?<=://%b)|(?<=[^\w.~+\-/\x80-\xff]\.%b))"
        whole = before % (5 * (re.escape(prefix),))
    return re.compile(b"(?:" + whole + rb")(?![\w.~+@%\-\x80-\xff])")


def check_path(prefix: str) -> None:
    """Raise `CannotRelocate` unless `prefix` is an absolute path in its one spelling."""
    if not re.fullmatch(r"(?:/[^/]+)+", prefix) or {".", ".."} & set(prefix.split("/")):
        raise CannotRelocate(
            f"{prefix!r}: not usable as a prefix; use an absolute path without //, /./, /../ or a trailing /"
        )


def check_prefix(prefix: str) -> None:
    """Raise `CannotRelocate` for a path that files can't hold, or that would not be found in them again."""
    if _OF_ALL.fullmatch(prefix):
        raise CannotRelocate(
            f"{prefix}: not usable as a prefix, files name it for the system's own paths; "
            "use a folder of the environment's own"
        )
    check_path(prefix)
    if re.search("[\"'$`\\\\\x00-\x1f]", prefix):
        raise CannotRelocate(
            f"{prefix!r}: not usable as a prefix, scripts would misread quotes, $, backslashes or newlines"
        )
