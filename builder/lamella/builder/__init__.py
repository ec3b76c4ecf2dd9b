"""Ship the Python environment of this machine: scan it, push it, compare it.

    >>> import lamella.builder
    >>> lamella.builder.push("registry.example.com/team/envs:v1")

This is the whole public API; every other module is private. Names are imported on first use, so that a
program starts as fast as without them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamella.builder.content.blob import Compression
    from lamella.builder.content.precompiler import Precompiler
    from lamella.builder.environment import Environment, File, Interpreter, LeftOut, Needs, Package
    from lamella.builder.errors import (
        BuilderError,
        CacheError,
        CannotBuild,
        EnvironmentChanged,
        InvalidManifest,
        NotAnEnvironment,
    )
    from lamella.builder.image.docker_load import load_image
    from lamella.builder.image.documents import CREATED, ImageSettings
    from lamella.builder.kubernetes.daemon_set import DaemonSetOptions, agent_daemon_set
    from lamella.builder.kubernetes.injection import inject
    from lamella.builder.kubernetes.options import InjectOptions, injection_method
    from lamella.builder.kubernetes.removal import Injected, InjectedPod, remove_environment
    from lamella.builder.kubernetes.resolve import resolve_options
    from lamella.builder.layer.cache import LayerCache
    from lamella.builder.layer.plan import PlannedLayer, PushPlan
    from lamella.builder.layer.prune import CacheUsage, Pruned, cache_usage, prune_cache
    from lamella.builder.layer.shipped_files import ShippedFile, shipped_files
    from lamella.builder.packing.contents import PackedPackage
    from lamella.builder.packing.pack import Packed, pack
    from lamella.builder.prefix.active import active_prefix
    from lamella.builder.pushing.difference import ComparedEnvironment, ComparedPackage, Difference, diff
    from lamella.builder.pushing.file_changes import FileChange, PackageChanges, file_changes
    from lamella.builder.pushing.options import PushOptions
    from lamella.builder.pushing.push import Pushed, push
    from lamella.builder.resolving.model import (
        Artifact,
        InstalledCondaPackage,
        InstalledDistribution,
        InstalledPackages,
        Moved,
        Resolution,
        ResolveOptions,
        Target,
    )
    from lamella.builder.resolving.target_prefix import TargetPlan, needs_resolving, resolve, target_environment
    from lamella.builder.scanning.explain import ExplainedFile, Explanation, explain
    from lamella.builder.scanning.findings import blocking_findings
    from lamella.builder.scanning.options import ScanOptions
    from lamella.builder.scanning.scan import scan
    from lamella.builder.watching.events import WatchEvent
    from lamella.builder.watching.watch import WatchOptions, watch
    from lamella.layers.errors import LamellaError
    from lamella.layers.published.findings import Finding

__all__ = [
    "CREATED",
    "Artifact",
    "BuilderError",
    "CacheError",
    "CacheUsage",
    "CannotBuild",
    "ComparedEnvironment",
    "ComparedPackage",
    "Compression",
    "DaemonSetOptions",
    "Difference",
    "Environment",
    "EnvironmentChanged",
    "ExplainedFile",
    "Explanation",
    "File",
    "FileChange",
    "Finding",
    "ImageSettings",
    "InjectOptions",
    "Injected",
    "InjectedPod",
    "InstalledCondaPackage",
    "InstalledDistribution",
    "InstalledPackages",
    "Interpreter",
    "InvalidManifest",
    "LamellaError",
    "LayerCache",
    "LeftOut",
    "Moved",
    "Needs",
    "NotAnEnvironment",
    "Package",
    "PackageChanges",
    "Packed",
    "PackedPackage",
    "PlannedLayer",
    "Precompiler",
    "Pruned",
    "PushOptions",
    "PushPlan",
    "Pushed",
    "Resolution",
    "ResolveOptions",
    "ScanOptions",
    "ShippedFile",
    "Target",
    "TargetPlan",
    "WatchEvent",
    "WatchOptions",
    "active_prefix",
    "agent_daemon_set",
    "blocking_findings",
    "cache_usage",
    "diff",
    "explain",
    "file_changes",
    "inject",
    "injection_method",
    "load_image",
    "needs_resolving",
    "pack",
    "prune_cache",
    "push",
    "remove_environment",
    "resolve",
    "resolve_options",
    "scan",
    "shipped_files",
    "target_environment",
    "watch",
]

_MODULES = {
    "Compression": "lamella.builder.content.blob",
    "Precompiler": "lamella.builder.content.precompiler",
    "Environment": "lamella.builder.environment",
    "File": "lamella.builder.environment",
    "Interpreter": "lamella.builder.environment",
    "LeftOut": "lamella.builder.environment",
    "Needs": "lamella.builder.environment",
    "Package": "lamella.builder.environment",
    "BuilderError": "lamella.builder.errors",
    "CacheError": "lamella.builder.errors",
    "CannotBuild": "lamella.builder.errors",
    "EnvironmentChanged": "lamella.builder.errors",
    "NotAnEnvironment": "lamella.builder.errors",
    "load_image": "lamella.builder.image.docker_load",
    "CREATED": "lamella.builder.image.documents",
    "ImageSettings": "lamella.builder.image.documents",
    "InvalidManifest": "lamella.builder.errors",
    "DaemonSetOptions": "lamella.builder.kubernetes.daemon_set",
    "agent_daemon_set": "lamella.builder.kubernetes.daemon_set",
    "inject": "lamella.builder.kubernetes.injection",
    "InjectOptions": "lamella.builder.kubernetes.options",
    "injection_method": "lamella.builder.kubernetes.options",
    "Injected": "lamella.builder.kubernetes.removal",
    "InjectedPod": "lamella.builder.kubernetes.removal",
    "remove_environment": "lamella.builder.kubernetes.removal",
    "resolve_options": "lamella.builder.kubernetes.resolve",
    "LayerCache": "lamella.builder.layer.cache",
    "PlannedLayer": "lamella.builder.layer.plan",
    "PushPlan": "lamella.builder.layer.plan",
    "CacheUsage": "lamella.builder.layer.prune",
    "cache_usage": "lamella.builder.layer.prune",
    "Pruned": "lamella.builder.layer.prune",
    "prune_cache": "lamella.builder.layer.prune",
    "PackedPackage": "lamella.builder.packing.contents",
    "Packed": "lamella.builder.packing.pack",
    "pack": "lamella.builder.packing.pack",
    "ShippedFile": "lamella.builder.layer.shipped_files",
    "shipped_files": "lamella.builder.layer.shipped_files",
    "active_prefix": "lamella.builder.prefix.active",
    "Difference": "lamella.builder.pushing.difference",
    "ComparedEnvironment": "lamella.builder.pushing.difference",
    "ComparedPackage": "lamella.builder.pushing.difference",
    "diff": "lamella.builder.pushing.difference",
    "FileChange": "lamella.builder.pushing.file_changes",
    "PackageChanges": "lamella.builder.pushing.file_changes",
    "file_changes": "lamella.builder.pushing.file_changes",
    "PushOptions": "lamella.builder.pushing.options",
    "Pushed": "lamella.builder.pushing.push",
    "push": "lamella.builder.pushing.push",
    "ExplainedFile": "lamella.builder.scanning.explain",
    "Explanation": "lamella.builder.scanning.explain",
    "explain": "lamella.builder.scanning.explain",
    "blocking_findings": "lamella.builder.scanning.findings",
    "Artifact": "lamella.builder.resolving.model",
    "InstalledCondaPackage": "lamella.builder.resolving.model",
    "InstalledDistribution": "lamella.builder.resolving.model",
    "InstalledPackages": "lamella.builder.resolving.model",
    "Moved": "lamella.builder.resolving.model",
    "Resolution": "lamella.builder.resolving.model",
    "ResolveOptions": "lamella.builder.resolving.model",
    "Target": "lamella.builder.resolving.model",
    "TargetPlan": "lamella.builder.resolving.target_prefix",
    "needs_resolving": "lamella.builder.resolving.target_prefix",
    "resolve": "lamella.builder.resolving.target_prefix",
    "target_environment": "lamella.builder.resolving.target_prefix",
    "ScanOptions": "lamella.builder.scanning.options",
    "scan": "lamella.builder.scanning.scan",
    "WatchEvent": "lamella.builder.watching.events",
    "WatchOptions": "lamella.builder.watching.watch",
    "watch": "lamella.builder.watching.watch",
    "LamellaError": "lamella.layers.errors",
    "Finding": "lamella.layers.published.findings",
}


def __getattr__(name: str) -> object:
    """Import `name` from its module. Source: PEP 562."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return __all__
