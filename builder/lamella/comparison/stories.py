"""The stories of a comparison, each from a change to the import on the node, and the change that each makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.comparison.errors import ComparisonError
from lamella.comparison.result import Story
from lamella.layers.text import size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamella.comparison.subject.subject import Original, Subject

SHARED_PERCENT = 90


@dataclass(frozen=True, slots=True)
class Check:
    """What a node must import, and find, for a story to have ended."""

    modules: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
    """Names of distributions with the versions that the change gave them."""
    edit: int
    """Number of the local code's last edit."""

    def program(self) -> str:
        """Return Python that fails unless all of it holds."""
        lines = [f"import {', '.join((*self.modules, 'compared_code.module_1'))}"]
        lines += [f"assert compared_code.EDIT == {self.edit}, compared_code.EDIT"]
        if self.versions:
            lines.append("from importlib.metadata import version")
            lines += [f"assert version({name!r}) == {found!r}, version({name!r})" for name, found in self.versions]
        return "\n".join(lines)


NAMES = (
    "new",
    "unchanged",
    "small-upgrade",
    "large-upgrade",
    "edit",
    "sharing",
    "second-node",
    "ten-nodes",
)
BEFORE = "Docker's base image is on the builder, in the registry and on the node before."
ONLY_DELIVERS = frozenset({"second-node", "ten-nodes"})
"""Stories that change and publish nothing: the last published environment reaches fresh nodes."""


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names in the order of the stories; all of them for none.

    Raises:
        ComparisonError: a name that is not a story.
    """
    for name in names:
        if name not in NAMES:
            raise ComparisonError(f"--story {name}: not a story; use {', '.join(NAMES)}", code="invalid")
    return tuple(name for name in NAMES if not names or name in names)


def described(name: str, original: Original, nodes: int) -> Story:
    """Return a story with what it did to this environment."""
    small, large = original.small, original.large
    upgrade = "another version in its metadata and a line in its largest module"
    titles = {
        "new": "Everything new",
        "unchanged": "Nothing changed",
        "small-upgrade": "One small package upgraded",
        "large-upgrade": "One large package upgraded",
        "edit": "One line of local code edited",
        "sharing": f"A second environment that shares {SHARED_PERCENT} %",
        "second-node": "A second node",
        "ten-nodes": f"{nodes} nodes at once",
    }
    descriptions = {
        "new": f"{len(original.distributions)} packages and {original.code_files} files of local code reach a registry and a node"
        f" that have none of them. {BEFORE}",
        "unchanged": "The same environment once more, from the command on the laptop to the node.",
        "small-upgrade": f"{small.name} ({size(original.size_of(small))}) gets {upgrade}.",
        "large-upgrade": f"{large.name} ({size(original.size_of(large))}) gets {upgrade}.",
        "edit": "One line of one module of the local code changes.",
        "sharing": f"A copy in which packages with {100 - SHARED_PERCENT} % of the bytes have other versions, under another tag,"
        " delivered to the node that has the first environment.",
        "second-node": "The last published environment reaches a node that has only Docker's base image.",
        "ten-nodes": f"The last published environment reaches {nodes} such nodes at the same time, all on this machine.",
    }
    return Story(name, titles[name], descriptions[name])


def change(name: str, subject: Subject) -> Check:
    """Make the change of a story to `subject`, and return what a node must then find."""
    both = (*subject.modules(subject.original.small), *subject.modules(subject.original.large))
    if name == "small-upgrade":
        new = subject.upgrade(subject.original.small, 1)
        return Check(subject.modules(subject.original.small), ((new.name, new.version),), subject.edit)
    if name == "large-upgrade":
        new = subject.upgrade(subject.original.large, 2)
        return Check(subject.modules(subject.original.large), ((new.name, new.version),), subject.edit)
    if name == "edit":
        subject.edit_code()
        return Check((), (), subject.edit)
    if name == "sharing":
        changed = [subject.upgrade(each, 3) for each in subject.original.shared_out(100 - SHARED_PERCENT)]
        return Check(both, tuple((each.name, each.version) for each in changed), subject.edit)
    return Check(both, (), subject.edit)
