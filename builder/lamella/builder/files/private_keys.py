"""Recognise private keys by content, since a key's name can be any."""

from __future__ import annotations

import re

from lamella.builder.files.small_file import read_small

MOST = 64 << 10
"""Maximum bytes of a file to look into: an RSA key of 16,384 bits has 13,000."""

# Source code may name such text, to parse or to test it. A key without code begins with it.
_CODE = (
    *(".py", ".pyi", ".pyx", ".pxd", ".ipynb", ".c", ".cc", ".cpp", ".h", ".hpp", ".rs", ".go", ".js", ".ts"),
    *(".java", ".sh"),
)
_COMPILED = (".so", ".pyc", ".pyd", ".a", ".o")
# Any of these is in every file with a key. Much faster to look for than the patterns.
_MARKS = (
    b"PRIVATE KEY",
    b"PuTTY-User-Key-File-",
    b"AGE-SECRET-KEY-",
    b"PrivateKey",
    b'"kty"',
    b"aws_secret_access_key",
    b"encrypted secret key",
)
# RFC 7468, RFC 4716 and RFC 9580 begin with such a line. A body tells a key from text about keys.
_ARMOURED = (
    rb"-{4,5} ?BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)? ?-{4,5}[ \t\r]*\n"
    rb"(?:[^\n]*\n){0,8}?[ \t]*[A-Za-z0-9+/=]{16,}[ \t\r]*(?:\n|\Z)"
)
_ONE_LINE = (
    rb"PuTTY-User-Key-File-\d+:",
    rb"AGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]{40,}",
    rb"untrusted comment: [^\n]*encrypted secret key",  # minisign
)
_BEGINS = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:" + b"|".join((_ARMOURED, *_ONE_LINE)) + rb")")
_LINES = re.compile(
    rb"(?m)^[ \t]*(?:"
    + b"|".join(
        (
            _ARMOURED,
            *_ONE_LINE,
            rb"PrivateKey[ \t]*=[ \t]*[A-Za-z0-9+/]{43}=[ \t\r]*$",  # WireGuard
            rb"aws_secret_access_key[ \t]*=[ \t]*[A-Za-z0-9/+=]{30,}[ \t\r]*$",
        )
    )
    + rb")"
)
# A service account's key; a JSON Web Key (RFC 7518, sections 6.2.2 and 6.3.2, 6.4.1), whose fields have any order.
_ACCOUNT = re.compile(rb'"private_key"\s*:\s*"-----BEGIN [A-Z ]*PRIVATE KEY-----\\n[A-Za-z0-9+/=]{16,}')
_WEB_KEY = re.compile(rb'"kty"\s*:\s*"(?:RSA|EC|OKP|oct)"')
_WEB_KEY_SECRET = re.compile(rb'"[dk]"\s*:\s*"[\w-]{16,}"')


def is_private_key(name: str, size: int, source: str) -> bool:
    """Whether the file `name` of `size` bytes at `source` is or holds a private key. An unreadable one does not."""
    if not 32 <= size <= MOST or name.endswith(_COMPILED):
        return False
    try:
        content = read_small(source, MOST)
    except OSError:
        return False
    return holds_private_key(content, code=name.endswith(_CODE))


def holds_private_key(content: bytes, *, code: bool = False) -> bool:
    """Whether `content` has a private key. Of source `code`, only its beginning counts."""
    if not any(mark in content for mark in _MARKS):
        return False
    if code:
        return bool(_BEGINS.match(content))
    return bool(
        _BEGINS.match(content)
        or _LINES.search(content)
        or _ACCOUNT.search(content)
        or (_WEB_KEY.search(content) and _WEB_KEY_SECRET.search(content))
    )
