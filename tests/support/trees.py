"""Layers' folders as a store would hold them, made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def folders(where: Path, count: int) -> list[str]:
    """`count` folders, each with a file of its own (`lib/pNNN/__init__.py`) and one that all have (`shared`)."""
    made = []
    for number in range(count):
        folder = write(
            where / f"layer-{number:04d}", {f"lib/p{number}/__init__.py": f"n = {number}\n", "shared": f"{number}"}
        )
        made.append(str(folder))
    return made


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """`folder` with `files`; a name that ends in `*` is executable, a content that begins with `->` is a link's target."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name.rstrip("*")
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("->"):
            path.symlink_to(content[2:])
            continue
        path.write_text(content)
        path.chmod(0o755 if name.endswith("*") else 0o644)
    return folder


def content(folder: Path) -> dict[str, str]:
    """Every file and link below `folder`, with its content, as `write` takes it (without the `*`)."""
    return {
        str(path.relative_to(folder)): f"->{path.readlink()}" if path.is_symlink() else path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }
