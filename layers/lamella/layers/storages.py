"""Opens whatever holds a reference: an OCI layout folder or a repository of a registry."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from lamella.layers.oci.reference import Reference
from lamella.layers.oci.tags import is_derived

if TYPE_CHECKING:
    from lamella.layers.oci.storage import Storage


def open_storage(
    reference: Reference, *, insecure: bool = False, create: bool = False, mirrors: bool = True
) -> Storage:
    """The storage that `reference` names. `insecure`: plain HTTP also beyond loopback. `create`: make a layout folder.

    Whoever writes opens without `mirrors`: they may be behind the registry, and what a tag names decides what is written.
    """
    if reference.is_layout:
        from lamella.layers.layout import OciLayout

        return OciLayout(reference.folder, create=create)
    from lamella.layers.registry.repository import Registry

    return Registry(reference.registry, reference.repository, insecure=insecure, mirrors=mirrors)


def in_the_clear(other: Reference, goal: Reference, *, insecure: bool) -> bool:
    """Whether `insecure`, which is said of `goal`, holds for `other` as well: its registry, or `goal` is a folder.

    Without TLS whoever is in between is shown the password: a registry of the own network being asked so is no reason to
    ask a public one so.
    """
    return insecure and (goal.is_layout or other.registry == goal.registry)


def list_tags(reference: str, *, insecure: bool = False) -> list[str]:
    """Every tag where `reference` is, sorted; its own tag does not matter.

    Tags that other documents' names are made into (referrers and signatures of a digest) are left out.
    """
    with contextlib.closing(open_storage(Reference.parse(reference), insecure=insecure)) as storage:
        return [tag for tag in storage.tags() if not is_derived(tag)]
