"""Opens whatever holds a reference: an OCI layout folder or a repository of a registry."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lamella.layers.settings import policy

if TYPE_CHECKING:
    from lamella.layers.oci.reference import Reference
    from lamella.layers.oci.storage import EditableStorage
    from lamella.layers.registry.remembered import Notes
    from lamella.layers.registry.repository import Registry
    from lamella.layers.registry.retry import Patience
    from lamella.layers.settings.trust import Trust


def open_storage(
    reference: Reference, trust: Trust, *, create: bool = False, mirrors: bool = True, notes: Notes | None = None
) -> EditableStorage:
    """Open the storage that `reference` names. `create`: make a missing layout folder.

    Open without `mirrors` to write: a mirror can lag behind the registry, and the tag's digest decides what to write.
    `notes`: facts about a registry that earlier processes learned, to save requests.
    Raises `PolicyError` if this machine's policy does not allow the registry or folder, or plain HTTP to it.
    """
    if reference.is_layout:
        from lamella.layers.layout import OciLayout

        policy.check_folder(reference.folder)
        return OciLayout(reference.folder, create=create)
    return open_registry(reference, trust, mirrors=mirrors, notes=notes)


def open_registry(
    reference: Reference,
    trust: Trust,
    *,
    mirrors: bool = True,
    notes: Notes | None = None,
    patience: Patience | None = None,
) -> Registry:
    """Open the repository that `reference` names. `patience`: how often to retry, by default as a pull does.

    Raises `PolicyError` as `open_storage` does.
    """
    from lamella.layers.registry.repository import Registry
    from lamella.layers.registry.retry import Patience
    from lamella.layers.registry.url import is_loopback

    plain = trust.insecure and not is_loopback(reference.registry)
    policy.check_registry(reference.registry, reference.repository, insecure=plain, hosts_dir=trust.hosts_dir)
    return Registry(
        reference.registry,
        reference.repository,
        trust=trust,
        patience=patience or Patience(),
        mirrors=mirrors,
        notes=notes,
    )


def trust_for(other: Reference, goal: Reference, trust: Trust) -> Trust:
    """Trust for `other`, from the `trust` that was given for `goal`.

    `insecure` carries over only to the same registry, or if `goal` is a folder: without TLS the network sees the
    password, and plain HTTP to a private registry is not a reason to send a public one's credentials that way.
    """
    return replace(trust, insecure=trust.insecure and (goal.is_layout or other.registry == goal.registry))
