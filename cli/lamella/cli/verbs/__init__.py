"""A module for each verb: `configure` adds its arguments, `run` runs it, `SETTINGS` are its own.

`VERBS` is the table of them as `lamella --help` shows it, without an import of their modules.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import argparse

    from lamella.cli.settings import Setting

Group = Literal["laptop", "registry", "node", "command"]
GROUPS: dict[Group, str] = {
    "laptop": "on the laptop",
    "registry": "in a registry or OCI layout folder",
    "node": "on the node",
    "command": "the command itself",
}
"""Titles of the groups, in the order of the help."""


class Verb(NamedTuple):
    """A verb as help, manual pages and completion show it, without importing its module."""

    summary: str
    group: Group
    needs_linux: bool = True
    examples: tuple[str, ...] = ()


VERBS = {
    "scan": Verb(
        "show an environment: packages, origins, sizes, findings",
        "laptop",
        needs_linux=False,
        examples=("lamella scan", "lamella scan --all .venv"),
    ),
    "push": Verb(
        "build and upload the layers that the registry lacks, and tag them",
        "laptop",
        needs_linux=False,
        examples=(
            "lamella push localhost:5000/team/envs:v1",
            "lamella push --dry-run oci:images:v1 .venv",
            "lamella push --platform linux/amd64,linux/arm64 localhost:5000/team/envs:v1",
        ),
    ),
    "diff": Verb(
        "compare two environments, and count the bytes to move",
        "laptop",
        needs_linux=False,
        examples=("lamella diff localhost:5000/team/envs:v1 .venv",),
    ),
    "explain": Verb(
        "show which package and layer a file is in, or why it is left out",
        "laptop",
        needs_linux=False,
        examples=("lamella explain train.py", "lamella explain numpy.linalg"),
    ),
    "compare": Verb(
        "measure an environment through Lamella, Docker images and installers, side by side",
        "laptop",
        examples=(
            "lamella compare --workflow lamella --workflow docker-uv --report comparison",
            "lamella compare .venv --rounds 3 --json",
        ),
    ),
    "inject": Verb(
        "add an environment to the pods of a Kubernetes manifest",
        "laptop",
        needs_linux=False,
        examples=(
            "lamella inject pods.yaml --env localhost:5000/team/envs:v1 --method image-volume",
            "helm template CHART | lamella inject - --env localhost:5000/team/envs:v1 --image IMAGE",
            "lamella inject pods.yaml --remove --in-place",
        ),
    ),
    "inspect": Verb(
        "show the packages and layers of a reference",
        "registry",
        needs_linux=False,
        examples=("lamella inspect localhost:5000/team/envs:v1",),
    ),
    "tags": Verb(
        "list the tags of environments in a repository or OCI layout folder",
        "registry",
        needs_linux=False,
        examples=("lamella tags localhost:5000/team/envs",),
    ),
    "copy": Verb(
        "copy an environment between registries and folders",
        "registry",
        needs_linux=False,
        examples=("lamella copy localhost:5000/team/envs:v1 oci:images:v1",),
    ),
    "untag": Verb(
        "remove a tag from a registry or OCI layout folder",
        "registry",
        needs_linux=False,
        examples=("lamella untag localhost:5000/team/envs:v1", "lamella untag --dry-run oci:images:v1"),
    ),
    "attach": Verb(
        "attach files to an environment, as an OCI artifact",
        "registry",
        needs_linux=False,
        examples=("lamella attach localhost:5000/team/envs:v1 report.html --type application/vnd.example.report",),
    ),
    "artifacts": Verb(
        "list the artifacts attached to an environment",
        "registry",
        needs_linux=False,
        examples=("lamella artifacts localhost:5000/team/envs:v1",),
    ),
    "fetch": Verb(
        "write attached files into a folder",
        "registry",
        needs_linux=False,
        examples=("lamella fetch localhost:5000/team/envs:v1 reports --type application/vnd.example.report",),
    ),
    "login": Verb(
        "save credentials for a registry, as Docker's clients do",
        "registry",
        needs_linux=False,
        examples=("lamella login ghcr.io -u ada", "lamella login ghcr.io -u ada --password-stdin <token.txt"),
    ),
    "logout": Verb(
        "remove the credentials for a registry",
        "registry",
        needs_linux=False,
        examples=("lamella logout ghcr.io",),
    ),
    "pull": Verb(
        "download and unpack the layers that the store lacks",
        "node",
        examples=("lamella pull localhost:5000/team/envs:v1",),
    ),
    "run": Verb(
        "run one command in an environment, without privileges",
        "node",
        examples=("lamella run localhost:5000/team/envs:v1 -- python -c 'import numpy'",),
    ),
    "mount": Verb(
        "mount an environment at a folder, until umount",
        "node",
        examples=("lamella mount localhost:5000/team/envs:v1 /opt/env",),
    ),
    "agent": Verb(
        "mount environments for the pods of this node, each once, and serve them on a socket",
        "node",
        examples=(
            "lamella agent --allow localhost:5000/team --keep 100GB",
            "lamella mount --agent /run/lamella/agent.sock localhost:5000/team/envs:v1",
        ),
    ),
    "umount": Verb("unmount an environment", "node", examples=("lamella umount /opt/env",)),
    "export": Verb(
        "write an ordinary copy for machines without Lamella",
        "node",
        examples=("lamella export localhost:5000/team/envs:v1 env.tar.gz", "lamella export .venv env.tar.zst"),
    ),
    "ls": Verb(
        "list the environments in the store, with their sizes",
        "node",
        examples=("lamella ls",),
    ),
    "df": Verb(
        "show the space that the store and the cache take, and how to free it",
        "node",
        examples=("lamella df",),
    ),
    "verify": Verb(
        "check the store, or a reference in a registry or folder, against its digests",
        "node",
        needs_linux=False,
        examples=("lamella verify", "lamella verify --deep localhost:5000/team/envs:v1"),
    ),
    "gc": Verb(
        "free space in the store; keep mounted layers",
        "node",
        examples=("lamella gc --older-than 30d", "lamella gc --keep 20GB --dry-run", "lamella gc oci:images"),
    ),
    "completion": Verb(
        "print a script that completes lamella's command line in a shell",
        "command",
        needs_linux=False,
        examples=('eval "$(lamella completion bash)"', "lamella completion fish | source"),
    ),
    "help": Verb("show the help of a verb", "command", needs_linux=False, examples=("lamella help push",)),
}


class VerbModule(Protocol):
    """Interface of the modules in `lamella.cli.verbs`."""

    SETTINGS: tuple[Setting, ...]

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the verb and return the exit code."""


def module(verb: str) -> VerbModule:
    """Import the module of `verb`."""
    found: VerbModule = importlib.import_module(f"lamella.cli.verbs.{verb}")
    return found


def require_linux(verb: str) -> None:
    """Raise `Unsupported` on other systems."""
    if sys.platform != "linux":
        from lamella.layers import Unsupported

        here = {"darwin": "macOS", "win32": "Windows"}.get(sys.platform, sys.platform)
        raise Unsupported(f"{verb}: not available on {here}; run it in a Linux container or virtual machine")
