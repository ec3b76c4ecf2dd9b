"""Sizes, durations, counts and foreign names as text for people."""

from __future__ import annotations

import json

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def size(count: float) -> str:
    """Return bytes in decimal units, as registries and disks count: `118 MB`, `1.9 GB`, `812 B`."""
    value = float(count)
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{value:.1f} {unit}" if value < 9.95 and unit != "B" else f"{value:.0f} {unit}"


def seconds(duration: float) -> str:
    """Return a duration as text: `0.42 s`, `12.3 s`, `2 min 5 s`."""
    if duration < 10:
        return f"{duration:.2f} s"
    if duration < 60:
        return f"{duration:.1f} s"
    return f"{int(duration // 60)} min {int(duration % 60)} s"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: `1 layer`, `12 layers`, `12,000 layers`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def bar(share: float, width: int) -> str:
    """Return a bar of block characters for a share from 0 to 1, at most `width` characters long."""
    eighths = max(1, round(min(share, 1) * width * 8)) if share > 0 else 0
    whole, part = divmod(eighths, 8)
    return "█" * whole + (" ▏▎▍▌▋▊▉"[part] if part else "")


def escaped(text: str | bytes, limit: int | None = None) -> str:
    """Return foreign text fit to be shown: without characters that control a terminal, cut at `limit` characters.

    Everything from a registry, a layer, a disk or another program goes through here before a person sees it.
    """
    if isinstance(text, bytes):
        # Four bytes to a character at most: the end of a text of megabytes is not decoded to be thrown away.
        text = (text if limit is None else text[: 4 * limit + 4]).decode("utf-8", "backslashreplace")
    cut = limit is not None and len(text) > limit
    text = text[:limit]
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else _escape(letter) for letter in text)
    return f"{text}…" if cut else text


def escaped_json(text: str) -> str:
    """Return a JSON document, known to be valid, with the characters that control a terminal as JSON's own escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in "\t\n\r" else json.dumps(letter)[1:-1] for letter in text
    )


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape", "backslashreplace").decode()
