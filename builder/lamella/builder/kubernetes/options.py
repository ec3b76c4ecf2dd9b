"""The environment to inject, and how: a value that is checked when it is made."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Literal, get_args

from lamella.builder.errors import InvalidManifest
from lamella.layers.oci.reference import Reference

InjectionMethod = Literal["init", "image-volume", "host"]
METHODS: tuple[str, ...] = get_args(InjectionMethod)
IMAGE_VOLUMES = (1, 33)
"""The first Kubernetes version in which image volumes are beta, with `subPath`."""
IMAGE_VOLUMES_BY_DEFAULT = (1, 35)
"""The first version that has them on by default."""

_VERSION = re.compile(r"v?([0-9]+)\.([0-9]+)(?:[.+-].*)?")
_PATH = re.compile(r"(?:/[A-Za-z0-9_.@+-]+)+")
_PINNED = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class InjectOptions:
    """The environment to add to pods, and how.

    Raises `InvalidManifest` if two options contradict each other, and `InvalidReference`.
    """

    reference: str
    """REGISTRY/REPOSITORY:TAG@sha256:…; `resolve_options` adds the digest of a tag, which `inject` needs."""
    method: InjectionMethod = "init"
    image: str = ""
    """The node image, which the methods init and host run."""
    prefix: str = "/opt/env"
    """The environment's image prefix."""
    path: str = ""
    """Path in the containers; the image prefix if empty."""
    containers: tuple[str, ...] = ()
    """Names of the containers that get it; all that are not init containers if empty."""
    pull_secret: str = ""
    """Secret with the registry's credentials; the pod's own image pull secret if empty."""
    node_store: str = ""
    """Folder of the node with a store that its pods share, for the method init; empty for a store in each pod."""
    architectures: tuple[str, ...] = ()
    """Architectures that the environment is for, such as amd64; pods select nodes that have one. Empty if not known."""
    glibc: str = ""
    """Version of glibc that the environment needs, which the check compares; empty if not known."""
    check: bool = True
    """Whether the interpreter runs once, in the first container's image, before the pod's containers start."""
    search_path: bool = True
    """Whether PATH begins with the environment's programs."""
    kubernetes_version: str = ""
    """Version of the cluster, such as 1.33; a method that it does not have is refused. Empty if not known."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidManifest(f"--method {self.method}: invalid choice; use {', '.join(METHODS)}")
        if Reference.parse(self.reference).is_layout:
            raise InvalidManifest(
                f"--env {self.reference}: a folder, which pods can't read; use lamella copy to a registry, then inject that"
            )
        for flag, path in (("--path", self.target), ("--node-store", self.node_store)):
            if path and (not _PATH.fullmatch(path) or posixpath.normpath(path) != path):
                raise InvalidManifest(f"{flag} {path}: not an absolute path; use one such as /opt/env")
        if self.method != "init" and self.target != self.prefix:
            raise InvalidManifest(
                f"--path {self.path}: the files of the environment name {self.prefix}, and --method {self.method} "
                f"mounts them as they are; leave --path out, or use --method init"
            )
        version = self.kubernetes_version
        if version and kubernetes_version(version) < IMAGE_VOLUMES and self.method == "image-volume":
            raise InvalidManifest(
                f"--method image-volume: needs Kubernetes 1.33 or newer, and the cluster has {version}; use --method init"
            )
        if self.node_store and self.method != "init":
            raise InvalidManifest(f"--node-store {self.node_store}: for --method init alone; leave it out")
        if self.method != "image-volume" and not self.image:
            raise InvalidManifest(
                f"--method {self.method}: needs the node image; build one with make node-image, push it with "
                "lamella copy, and name it with --image or LAMELLA_NODE_IMAGE"
            )

    def check_pinned(self) -> None:
        """Raise `InvalidManifest` unless the reference has its digest."""
        if not _PINNED.fullmatch(self.reference):
            raise InvalidManifest(f"{self.reference}: not pinned to a digest; use REGISTRY/REPOSITORY:TAG@sha256:…")

    @property
    def target(self) -> str:
        """Path of the environment in the containers."""
        return self.path or self.prefix

    @property
    def digest(self) -> str:
        """Hexadecimal digest of the reference."""
        return self.reference.rpartition(":")[2]


def kubernetes_version(text: str) -> tuple[int, int]:
    """Return the major and minor version in `text`, such as `1.33`, `v1.33.2` or `v1.33.2-gke.1`. Raises `InvalidManifest`."""
    found = _VERSION.fullmatch(text)
    if not found:
        raise InvalidManifest(f"--kubernetes-version {text}: not a version; use one such as 1.35")
    return int(found[1]), int(found[2])


def injection_method(version: str) -> tuple[InjectionMethod, str]:
    """Return the method that fits a cluster of Kubernetes `version`, which may be empty, with the reason."""
    if version and kubernetes_version(version) >= IMAGE_VOLUMES_BY_DEFAULT:
        return "image-volume", f"Kubernetes {version} has image volumes by default"
    if not version:
        return "init", "works on every cluster; --kubernetes-version 1.35 or newer chooses image-volume"
    return "init", f"Kubernetes {version} has no image volumes by default"
