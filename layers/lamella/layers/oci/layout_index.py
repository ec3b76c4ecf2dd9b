"""Entries of a layout's index.json, and their tags. Source: image-spec v1.1, image-layout.md and annotations.md."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lamella.layers.oci.documents import Descriptor

_REF_NAME = "org.opencontainers.image.ref.name"


def tag_of(entry: Mapping[str, Any]) -> str:
    """The tag of an entry; empty without one."""
    annotations = entry.get("annotations")
    tag = annotations.get(_REF_NAME) if isinstance(annotations, dict) else None
    return tag if isinstance(tag, str) else ""


def tags_of(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """The tags of all entries, sorted."""
    return sorted({tag for entry in entries if (tag := tag_of(entry))})


def tagged(descriptor: Descriptor, tag: str) -> dict[str, Any]:
    """An entry for the content of `descriptor` with a tag."""
    return descriptor.to_value() | {"annotations": dict(descriptor.annotations) | {_REF_NAME: tag}}


def without_tag(descriptor: Descriptor) -> Descriptor:
    """The descriptor of the content of an entry: the same image under two tags is one descriptor."""
    return replace(descriptor, annotations={k: v for k, v in descriptor.annotations.items() if k != _REF_NAME})
