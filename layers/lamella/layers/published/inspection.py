"""Inspect what a reference holds, package by package, without any layer."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.layers.attaching.listing import SBOM, attached_to
from lamella.layers.errors import LayersError, NotFound
from lamella.layers.oci.annotations import PLATFORM
from lamella.layers.oci.documents import Digest, Platform
from lamella.layers.oci.parsing import parse_object
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.referrers import MOST, annotations_of, content_of, referrers
from lamella.layers.published import findings as attached_findings
from lamella.layers.published.environment import PublishedIndex, for_platform, read_index
from lamella.layers.published.shared_layers import SharedLayers, shared
from lamella.layers.settings.trust import Trust
from lamella.layers.signing import cosign
from lamella.layers.storages import open_storage
from lamella.layers.text import counted

if TYPE_CHECKING:
    from lamella.layers.attaching.listing import AttachedArtifact
    from lamella.layers.oci.storage import Storage
    from lamella.layers.published.environment import PublishedEnvironment
    from lamella.layers.published.findings import Finding
    from lamella.layers.signing.cosign import Signature


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a reference holds."""

    reference: str
    """Pinned to the index's digest."""
    digest: Digest
    environments: tuple[PublishedEnvironment, ...]
    """One for each platform, in the index's order; each has its `packages`."""
    findings: tuple[tuple[str, Finding], ...]
    """The attached findings, each with its platform, the worst first."""
    findings_error: str
    """Why the findings could not be read, or empty."""
    shared: SharedLayers | None
    """Which other tags have the same layers; None if tags were not compared, or the registry does not list them."""
    signatures: tuple[Signature, ...]
    """Of the index; verified with the keys that are required here."""
    artifacts: tuple[AttachedArtifact, ...]
    """Everything attached to the index and its images, findings and bills of materials among it."""
    attached_error: str
    """Why signatures and artifacts could not be listed, or empty."""

    def __repr__(self) -> str:
        platforms = ", ".join(str(environment.platform) for environment in self.environments)
        packages = sum(len(environment.layers) for environment in self.environments)
        return f"<Inspection {self.reference}: {counted(packages, 'package')} for {platforms}; {counted(len(self.findings), 'finding')}>"


def inspect(
    reference: str, *, platform: Platform | None = None, compare: bool = True, trust: Trust = Trust()
) -> Inspection:
    """Read the manifests that `reference` names and their attachments, and no layer.

    `platform`: only that one's environment. `compare`: ask which other tags have the same layers, which reads up to 16 of
    them. Findings and attachments that can't be read are reported in the result. Raises `InvalidReference`, `NotFound`, `InvalidContent`
    unless Lamella pushed it, `NotSigned` if `trust` requires a signature that is missing, `Denied`, `Unreachable`.
    """
    parsed = Reference.parse(reference)
    with closing(open_storage(parsed, trust)) as storage:
        index = read_index(storage, parsed, trust, platform)
        environments = (for_platform(index, platform),) if platform else index.environments
        try:
            found, why_not = tuple(attached_findings.attached(storage, index.descriptor)), ""
        except LayersError as error:
            found, why_not = (), str(error)
        others = _shared(storage, index, environments) if compare else None
        try:
            signed = cosign.signatures(storage, index.descriptor.digest, trust)
            artifacts, unlisted = attached_to(storage, index.descriptor), ""
        except LayersError as error:
            signed, artifacts, unlisted = (), (), str(error)
    digest = index.descriptor.digest
    return Inspection(str(index.reference), digest, environments, found, why_not, others, signed, artifacts, unlisted)


def published_environment(
    reference: str, *, platform: Platform | None = None, trust: Trust = Trust()
) -> PublishedEnvironment:
    """The environment that `reference` names for `platform`, by default this machine's; reads its manifests alone.

    Raises `LayersError` if there is none for the platform, and what `inspect` raises.
    """
    parsed = Reference.parse(reference)
    with closing(open_storage(parsed, trust)) as storage:
        wanted = platform or Platform.here()
        return for_platform(read_index(storage, parsed, trust, wanted), wanted)


def sbom(reference: str, *, platform: Platform | None = None, trust: Trust = Trust()) -> str:
    """The bill of materials (CycloneDX JSON) attached to `reference` for `platform`.

    By default the only one, or this machine's if there are several. Raises `NotFound` without one, and what `inspect` raises.
    """
    parsed = Reference.parse(reference)
    with closing(open_storage(parsed, trust)) as storage:
        index = read_index(storage, parsed, trust, platform)
        if platform:
            for_platform(index, platform)
        found = {
            annotations_of(storage, referrer).get(PLATFORM, ""): referrer
            for referrer in referrers(storage, index.descriptor, SBOM)[-MOST:]
        }
        if not found:
            raise NotFound(f"{index.reference}: no bill of materials; attach one with lamella push --sbom")
        wanted = str(platform or Platform.here()) if platform or len(found) > 1 else next(iter(found))
        if wanted not in found:
            available = ", ".join(sorted(found))
            raise NotFound(
                f"{index.reference}: no bill of materials for {wanted}; use --platform with one of {available}"
            )
        content = content_of(storage, found[wanted])
        parse_object(content, f"the bill of materials {found[wanted].digest}")
        return content.decode()


def _shared(
    storage: Storage, index: PublishedIndex, environments: tuple[PublishedEnvironment, ...]
) -> SharedLayers | None:
    layers = [layer.descriptor.digest for each in environments for layer in each.layers]
    try:
        return shared(storage, index.reference.tag, layers)
    except LayersError:
        return None
