"""The files that an image's layers add up to, read without a container engine; nothing of them runs.

Sources: image-spec layer.md, "Whiteouts" and "Opaque Whiteout". The layers come from any builder, so `tarfile` reads
them: ustar, PAX and GNU headers, devices and setuid programs are all common in base images. It never writes:
`Tree` decides in memory which files there are, and only contents of regular files reach the disk.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent
from lamella.layers.oci.storage import save
from lamella.layers.tar.decompress import DiffReader, decompressed, expansion_limit
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lamella.layers.oci.documents import Layer
    from lamella.layers.oci.storage import Fetcher
    from lamella.layers.progress.display import Progress

TASK = "python"
_HIDES = ".wh."
_OPAQUE = ".wh..wh..opq"
_MAX_LINKS = 40
"""Links that one path may lead through, as in Linux."""
_MAX_ENTRIES = 1_000_000


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A regular file."""

    source: str
    """Path of its content on this disk; empty if the content was not kept."""
    executable: bool


@dataclass(frozen=True, slots=True)
class TreeLink:
    """A symbolic link."""

    target: str


@dataclass(slots=True)
class Tree:
    """Files and links by path, relative to the root, '/' between parts."""

    nodes: dict[str, TreeFile | TreeLink] = field(default_factory=dict)
    _children: dict[str, set[str]] = field(default_factory=dict)

    def add(self, path: str, node: TreeFile | TreeLink) -> None:
        """Put `node` at `path`, in place of a file, link or folder."""
        self.remove(path)
        self.nodes[path] = node
        while path:
            parent, _, name = path.rpartition("/")
            children = self._children.setdefault(parent, set())
            if name in children:
                break
            children.add(name)
            path = parent

    def remove(self, path: str) -> None:
        """Remove the file, link or folder at `path`. Idempotent."""
        pending = [path]
        while pending:
            gone = pending.pop()
            self.nodes.pop(gone, None)
            pending += [f"{gone}/{name}" for name in self._children.pop(gone, ())]
        parent, _, name = path.rpartition("/")
        self._children.get(parent, set()).discard(name)

    def clear(self, folder: str) -> None:
        """Remove everything below `folder`."""
        for name in list(self._children.get(folder, ())):
            self.remove(f"{folder}/{name}".lstrip("/"))

    def names(self, folder: str) -> list[str]:
        """Names in `folder`, which may lead through links; sorted."""
        return sorted(self._children.get(self.resolved(folder) or folder, ()))

    def resolved(self, path: str) -> str:
        """Path without links that `path` leads to, whether or not something is there; empty for a circle."""
        done: list[str] = []
        left = path.split("/")[::-1]
        links = 0
        while left:
            part = left.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del done[-1:]
                continue
            node = self.nodes.get("/".join((*done, part)))
            if not isinstance(node, TreeLink):
                done.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                return ""
            if node.target.startswith("/"):
                done = []
            left += node.target.split("/")[::-1]
        return "/".join(done)

    def file(self, path: str) -> TreeFile | None:
        """The regular file that `path` leads to, or None."""
        node = self.nodes.get(self.resolved(path))
        return node if isinstance(node, TreeFile) else None

    def below(self, folder: str) -> Iterator[str]:
        """Paths of the files and links below `folder`, which has no links in it; sorted in each folder."""
        for name in sorted(self._children.get(folder, ())):
            path = f"{folder}/{name}".lstrip("/")
            if path in self.nodes:
                yield path
            else:
                yield from self.below(path)


def image_tree(
    fetcher: Fetcher, layers: Sequence[Layer], wanted: Callable[[str], bool], spool: str, progress: Progress
) -> Tree:
    """Read `layers`, lowest first; keep the contents of `wanted` paths in the folder `spool`.

    Every blob is verified before it is read. Raises `InvalidContent` for one that is not a layer, and what `fetch` raises.
    """
    tree = Tree()
    progress.begin(TASK, sum(layer.descriptor.size for layer in layers), "B")
    try:
        for number, layer in enumerate(layers):
            blob = os.path.join(spool, "blob")
            save(fetcher, layer.descriptor, blob, lambda count: progress.advance(TASK, count))
            try:
                _add_layer(tree, blob, layer, wanted, os.path.join(spool, str(number)))
            except tarfile.TarError as error:
                raise InvalidContent(f"{layer.descriptor.digest}: not a tar archive: {error}") from None
            os.unlink(blob)
    finally:
        progress.end(TASK)
    return tree


def folder_tree(root: str, wanted: Callable[[str], bool]) -> Tree:
    """Files and links below the folder `root`; the contents of `wanted` paths stay where they are."""
    tree = Tree()
    for folder, folders, names in os.walk(root):
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in (*names, *(each for each in folders if os.path.islink(os.path.join(folder, each)))):
            source = os.path.join(folder, name)
            path = posixpath.normpath(f"{below}/{name}")
            if os.path.islink(source):
                tree.add(path, TreeLink(os.readlink(source)))
            elif os.path.isfile(source):
                executable = bool(os.stat(source).st_mode & 0o100)
                tree.add(path, TreeFile(source if wanted(path) else "", executable))
    return tree


def _add_layer(tree: Tree, blob: str, layer: Layer, wanted: Callable[[str], bool], spool: str) -> None:
    added: list[tuple[str, TreeFile | TreeLink | str | None]] = []
    hidden: list[tuple[str, str]] = []
    kept = 0
    with open(blob, "rb") as packed:
        content = DiffReader(
            decompressed(packed, layer.descriptor.media_type), layer.diff_id, expansion_limit(layer.descriptor)
        )
        # tarfile wants IO[bytes] and uses read() alone in a stream.
        with tarfile.open(fileobj=content, mode="r|") as archive:  # type: ignore[call-overload]
            for count, member in enumerate(archive):
                if count > _MAX_ENTRIES:
                    raise InvalidContent(f"{layer.descriptor.digest}: more than {_MAX_ENTRIES:,} entries")
                path = _path(member.name)
                parent, name = posixpath.split(path)
                if name.startswith(_HIDES):
                    hidden.append((parent, name))
                elif member.isreg():
                    source = ""
                    if wanted(path) and (file := archive.extractfile(member)):
                        source, kept = f"{spool}-{kept}", kept + 1
                        with open(source, "xb") as out:
                            shutil.copyfileobj(file, out)
                    added.append((path, TreeFile(source, bool(member.mode & 0o100))))
                elif member.issym():
                    added.append((path, TreeLink(member.linkname)))
                elif member.islnk():
                    added.append((path, _path(member.linkname)))
                elif member.isdir():
                    added.append((path, None))
        while content.read(1 << 20):
            pass
        content.check()
    # Whiteouts hide files of lower layers alone, wherever in its layer they are.
    for parent, name in hidden:
        folder = tree.resolved(parent)
        if name == _OPAQUE:
            tree.clear(folder)
        else:
            tree.remove(f"{folder}/{name.removeprefix(_HIDES)}".lstrip("/"))
    for path, node in added:
        _place(tree, path, node)


def _place(tree: Tree, path: str, node: TreeFile | TreeLink | str | None) -> None:
    """Add a layer's entry: a file, a link, the path of the file that a hard link names, or None for a folder."""
    parent, name = posixpath.split(path)
    # An engine unpacks through links of lower layers: `lib/x` is at `usr/lib/x` if `lib` is a link.
    there = f"{tree.resolved(parent)}/{name}".lstrip("/")
    if isinstance(node, str):
        if linked := tree.file(node):
            tree.add(there, linked)
    elif node is None:
        if there in tree.nodes:
            tree.remove(there)
    elif there:
        tree.add(there, node)


def _path(name: str) -> str:
    path = posixpath.normpath(f"/{name}").lstrip("/")
    if ".." in name.split("/"):
        raise InvalidContent(f"{escaped(name, 100)}: a path of an image that leaves its root")
    return path
