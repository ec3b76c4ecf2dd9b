"""The settings of an agent, and the registries that it pulls from for others."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidReference, PolicyError
from lamella.layers.oci.reference import Reference
from lamella.layers.settings.policy import Policy, allowing, check_folder, check_registry, machine_policy

if TYPE_CHECKING:
    from lamella.layers.settings.trust import Trust

SOCKET = "/run/lamella/agent.sock"


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """How an agent serves its node. Raises `PolicyError` for an invalid pattern in `allow`."""

    socket: str = SOCKET
    """Path of the Unix socket."""
    socket_mode: int = 0o666
    """Permissions of the socket: the folder above it decides which pods reach it."""
    environments: str = ""
    """Folder of the mounts, one a digest; empty for `environments` in the store."""
    allow: tuple[str, ...] = ()
    """Registries and folders to pull from for others, in the grammar of `Policy.allowed_registries`."""
    pull: tuple[str, ...] = ()
    """References to keep pulled and mounted."""
    every: float = 60.0
    """Seconds between two checks of the tags of `pull`, of the store's size and of free space."""
    keep_bytes: int | None = None
    """Bytes to shrink the store to; None for no limit."""
    min_free: float = 0.1
    """Share of the store's file system to keep free; 0 for no limit."""
    idle: float = 3600.0
    """Seconds that an environment stays mounted after its last request and its last use."""
    metrics: str = "127.0.0.1:9464"
    """HOST:PORT of the metrics; empty for none beside the socket's."""

    def __post_init__(self) -> None:
        if self.allow:
            allowing(self.allow)


@dataclass(frozen=True, slots=True)
class Allowed:
    """The repositories that an agent pulls from for others: it pulls with its own credentials, for every pod."""

    policy: Policy

    def check(self, reference: Reference, trust: Trust) -> None:
        """Raise `PolicyError` if neither the agent's options nor the machine's policy allow `reference`."""
        if reference.is_layout:
            if not os.path.isabs(reference.folder):
                raise InvalidReference(
                    f"oci:{reference.folder}: not an absolute path; an agent has no current directory"
                )
            check_folder(reference.folder)
            allowed = self.policy.allows_folder(reference.folder)
        else:
            check_registry(reference.registry, reference.repository, insecure=False, hosts_dir=trust.hosts_dir)
            allowed = self.policy.allows(reference.registry, reference.repository)
        if not allowed:
            # The patterns themselves are not for pods to see.
            raise PolicyError(
                f"{reference.place}: not allowed by the agent of this node; add --allow {reference.place} to its command"
            )


def allowed(options: AgentOptions) -> Allowed:
    """The repositories of `allow` and `pull`, or else of the machine's policy. Raises `PolicyError` without any."""
    patterns = [*options.allow, *(Reference.parse(each).place for each in options.pull)]
    if not options.allow and machine_policy().allowed_registries:
        # The administrator's list is the limit, and holds for `pull` as well.
        return Allowed(Policy())
    if not patterns:
        raise PolicyError(
            "agent: pods could read every private environment that this node's credentials open; "
            "limit it with --allow REGISTRY/REPOSITORY, or with allowed-registries in /etc/lamella/config.toml"
        )
    return Allowed(allowing(patterns))
