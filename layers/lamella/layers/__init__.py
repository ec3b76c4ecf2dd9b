"""Environments on a node: pull, mount, run, export and inspect what a reference names.

The names of `__all__` are the public API. Each is loaded on first use, so `import lamella.layers` loads no other module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamella.layers.agent.client import agent_state, request_environment
    from lamella.layers.agent.options import AgentOptions
    from lamella.layers.agent.protocol import NodeEnvironment
    from lamella.layers.agent.serve import serve_agent
    from lamella.layers.attaching.attach import Attached, FetchedFile, FetchOptions, attach, fetch
    from lamella.layers.attaching.listing import ArtifactFile, AttachedArtifact, artifacts
    from lamella.layers.errors import (
        Busy,
        CannotRun,
        CredentialsError,
        Denied,
        ExportError,
        FalseMirror,
        InvalidContent,
        InvalidReference,
        LamellaError,
        LayersError,
        MountError,
        NoSpace,
        NotFound,
        NotSigned,
        PolicyError,
        SignatureError,
        StoreError,
        Unreachable,
        UnsafeLayer,
        Unsupported,
    )
    from lamella.layers.exporting.export import Exported, export
    from lamella.layers.exporting.target import ExportOptions
    from lamella.layers.following.command import run_following
    from lamella.layers.following.mounted import FollowOptions, follow
    from lamella.layers.following.moves import FollowEvent
    from lamella.layers.mounting.claims import Mounted
    from lamella.layers.mounting.ladder import Method, Rung
    from lamella.layers.mounting.mount import MountOptions, mount, mounts, umount
    from lamella.layers.oci.documents import Digest, Layer, Platform
    from lamella.layers.oci.reference import Reference
    from lamella.layers.progress.display import Bars, Progress, Silent
    from lamella.layers.published.copy import Copied, copy
    from lamella.layers.published.environment import PublishedEnvironment
    from lamella.layers.published.findings import Finding, Severity
    from lamella.layers.published.inspection import Inspection, inspect, published_environment, sbom
    from lamella.layers.published.layer_files import LayerFile, LayerFiles, layer_files
    from lamella.layers.published.package import PublishedPackage
    from lamella.layers.published.preflight import obstacle, unmet_needs
    from lamella.layers.published.shared_layers import SharedLayers
    from lamella.layers.published.tagged import TaggedEnvironment, tagged_environments, tags
    from lamella.layers.published.untag import Untagged, untag
    from lamella.layers.published.validate import Fault, VerifiedReference, verify_reference
    from lamella.layers.pulling.pull import Pulled, PullPlan, leased, pull
    from lamella.layers.registry.login import login, logout, registry_name
    from lamella.layers.running.run import exec_command, run
    from lamella.layers.settings.policy import Policy, machine_policy
    from lamella.layers.settings.trust import Trust
    from lamella.layers.signing.cosign import sign, verify_signature
    from lamella.layers.signing.keys import read_private_key
    from lamella.layers.store.store import Store
    from lamella.layers.upkeep.gc import Freed, gc
    from lamella.layers.upkeep.layout_gc import FreedBlobs, gc_layout
    from lamella.layers.upkeep.usage import StoredEnvironment, StoreUsage, disk_usage, stored_environments
    from lamella.layers.upkeep.verify import Damage, Verified, verify

    __version__: str

__all__ = [
    "AgentOptions",
    "ArtifactFile",
    "Attached",
    "AttachedArtifact",
    "Bars",
    "Busy",
    "CannotRun",
    "Copied",
    "CredentialsError",
    "Damage",
    "Denied",
    "Digest",
    "ExportError",
    "ExportOptions",
    "Exported",
    "FalseMirror",
    "Fault",
    "FetchOptions",
    "FetchedFile",
    "Finding",
    "FollowEvent",
    "FollowOptions",
    "Freed",
    "FreedBlobs",
    "Inspection",
    "InvalidContent",
    "InvalidReference",
    "LamellaError",
    "Layer",
    "LayerFile",
    "LayerFiles",
    "LayersError",
    "Method",
    "MountError",
    "MountOptions",
    "Mounted",
    "NoSpace",
    "NodeEnvironment",
    "NotFound",
    "NotSigned",
    "Platform",
    "Policy",
    "PolicyError",
    "Progress",
    "PublishedEnvironment",
    "PublishedPackage",
    "PullPlan",
    "Pulled",
    "Reference",
    "Rung",
    "Severity",
    "SharedLayers",
    "SignatureError",
    "Silent",
    "Store",
    "StoreError",
    "StoreUsage",
    "StoredEnvironment",
    "TaggedEnvironment",
    "Trust",
    "Unreachable",
    "UnsafeLayer",
    "Unsupported",
    "Untagged",
    "Verified",
    "VerifiedReference",
    "__version__",
    "agent_state",
    "artifacts",
    "attach",
    "copy",
    "disk_usage",
    "exec_command",
    "export",
    "fetch",
    "follow",
    "gc",
    "gc_layout",
    "inspect",
    "layer_files",
    "leased",
    "login",
    "logout",
    "machine_policy",
    "mount",
    "mounts",
    "obstacle",
    "published_environment",
    "pull",
    "read_private_key",
    "registry_name",
    "request_environment",
    "run",
    "run_following",
    "sbom",
    "serve_agent",
    "sign",
    "stored_environments",
    "tagged_environments",
    "tags",
    "umount",
    "unmet_needs",
    "untag",
    "verify",
    "verify_reference",
    "verify_signature",
]

_NAMES_OF_MODULES = {
    "agent.client": "agent_state request_environment",
    "agent.options": "AgentOptions",
    "agent.protocol": "NodeEnvironment",
    "agent.serve": "serve_agent",
    "attaching.attach": "Attached FetchOptions FetchedFile attach fetch",
    "attaching.listing": "ArtifactFile AttachedArtifact artifacts",
    "errors": (
        "Busy CannotRun CredentialsError Denied ExportError FalseMirror InvalidContent InvalidReference LamellaError LayersError "
        "MountError NoSpace NotFound NotSigned PolicyError SignatureError StoreError Unreachable UnsafeLayer Unsupported"
    ),
    "exporting.export": "Exported export",
    "exporting.target": "ExportOptions",
    "following.command": "run_following",
    "following.mounted": "FollowOptions follow",
    "following.moves": "FollowEvent",
    "mounting.claims": "Mounted",
    "mounting.ladder": "Method Rung",
    "mounting.mount": "MountOptions mount mounts umount",
    "oci.documents": "Digest Layer Platform",
    "oci.reference": "Reference",
    "progress.display": "Bars Progress Silent",
    "published.copy": "Copied copy",
    "published.environment": "PublishedEnvironment",
    "published.findings": "Finding Severity",
    "published.inspection": "Inspection inspect published_environment sbom",
    "published.layer_files": "LayerFile LayerFiles layer_files",
    "published.package": "PublishedPackage",
    "published.preflight": "obstacle unmet_needs",
    "published.shared_layers": "SharedLayers",
    "published.tagged": "TaggedEnvironment tagged_environments tags",
    "published.untag": "Untagged untag",
    "published.validate": "Fault VerifiedReference verify_reference",
    "pulling.pull": "PullPlan Pulled leased pull",
    "registry.login": "login logout registry_name",
    "running.run": "exec_command run",
    "settings.policy": "Policy machine_policy",
    "settings.trust": "Trust",
    "signing.cosign": "sign verify_signature",
    "signing.keys": "read_private_key",
    "store.store": "Store",
    "upkeep.gc": "Freed gc",
    "upkeep.layout_gc": "FreedBlobs gc_layout",
    "upkeep.usage": "StoredEnvironment StoreUsage disk_usage stored_environments",
    "upkeep.verify": "Damage Verified verify",
}
_MODULES = {name: module for module, names in _NAMES_OF_MODULES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("lamella")
    elif name in _MODULES:
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
