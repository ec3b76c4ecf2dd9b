"""Which registries and which signatures to trust: a value that callers pass, never the process's environment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trust:
    """Trust for one operation. By default: the system's authorities, containerd's mirrors, and signatures not required."""

    required_key: str | None = None
    """File with a public key (PEM): refuse each environment that it did not sign."""
    ca_file: str | None = None
    """File with certificate authorities (PEM) to trust for every registry, in addition to the system's."""
    hosts_dir: str | None = None
    """Folder of containerd's `hosts.toml` files, which name mirrors; None for /etc/containerd/certs.d."""
    insecure: bool = False
    """Plain HTTP to the registry, also beyond loopback."""
    required_identity: str = ""
    """What the signature of the required key must name: `reference` for the repository that is read, or `REGISTRY/REPOSITORY`,
    which ends in `/*` to accept each below it. Without it a copy in another repository is accepted, as cosign accepts it."""

    @property
    def authorities(self) -> tuple[str, ...]:
        """Files with certificate authorities, in addition to the system's."""
        return (self.ca_file,) if self.ca_file else ()
