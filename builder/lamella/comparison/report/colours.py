"""Colours of charts and pages as CSS variables, for light and dark.

Text has a contrast of 4.5 on its background, bars of 3 (WCAG 2.2, 1.4.3 and 1.4.11). Steps that follow each other differ
in red-green blindness as well.
"""

from __future__ import annotations

LIGHT = {
    "paper": "#ffffff", "card": "#f6f8fa", "ink": "#1b1f24", "muted": "#57606a", "line": "#d0d7de", "link": "#0550ae",
    "warn": "#9a3412",
    "make": "#b86200", "send": "#0969da", "fetch": "#1a7f55", "place": "#a3254f", "install": "#8250df", "import": "#6e7781",
    "other": "#424a53",
}  # fmt: skip
DARK = {
    "paper": "#0d1117", "card": "#161b22", "ink": "#e6edf3", "muted": "#9da7b1", "line": "#30363d", "link": "#79b8ff",
    "warn": "#ffa657",
    "make": "#e3922b", "send": "#4493f8", "fetch": "#3fb984", "place": "#f27ba1", "install": "#b392f0", "import": "#8b949e",
    "other": "#b1bac4",
}  # fmt: skip
STEPS = {
    "build": "make", "pack": "make", "push": "send", "copy": "send", "pull": "fetch", "unpack": "place", "mount": "place",
    "install": "install", "import": "import",
}  # fmt: skip
"""Colour of each step; others have `other`."""


def variables() -> str:
    """Return CSS that defines the colours, for the system's choice of light or dark. Paper is always light."""

    def block(colours: dict[str, str]) -> str:
        return "".join(f"--{name}:{value};" for name, value in colours.items())

    return (
        f":root{{color-scheme:light dark;{block(LIGHT)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{block(DARK)}}}}}"
    )
