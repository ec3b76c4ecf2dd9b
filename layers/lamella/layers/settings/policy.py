"""What this machine's administrator requires: no flag, variable, file or call of a user weakens it.

The library reads it itself, from one file that only an administrator writes, so that every verb and every call obeys. See
docs/adr/a-project-shapes-what-is-built.md.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import stat
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lamella.layers.errors import PolicyError
from lamella.layers.text import escaped, size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATH = "/etc/lamella/config.toml"

SETTINGS = frozenset(
    {
        "base", "ca-file", "cache", "compression", "cuda", "elsewhere", "exact", "fail-on", "glibc", "hosts-dir", "ignore",
        "image-prefix", "include", "local", "match", "max-layers", "method", "node-image", "platform", "python-from", "store",
    }
)  # fmt: skip
"""Keys of the file that are defaults for the command; a key that is in neither list is refused, since it may be a typo of one
that protects."""
_REQUIREMENTS = frozenset({"allowed-registries", "insecure", "require-identity", "require-signature", "shared-group"})

_MAX_BYTES = 1 << 20
_HOST = r"[\w-]+(?:\.[\w-]+)*|\[[0-9a-fA-F:]+\]"
_ALLOWED = rf"(?:(?:\*\.)?(?:{_HOST})(?::\d+)?(?:/[\w.-]+)*|oci:(?:/.*)?)"
_FLAGS = re.ASCII | re.DOTALL


@dataclass(frozen=True, slots=True)
class Policy:
    """What an administrator requires of everything that is read or written here. By default: nothing."""

    required_keys: tuple[str, ...] = ()
    """Files with public keys (PEM): refuse each image that none of them signed."""
    required_identity: str = ""
    """What the signature must name; see `Trust.required_identity`."""
    allowed_registries: tuple[str, ...] = ()
    """`HOST[:PORT][/REPOSITORY]`, `*.DOMAIN` or `oci:[/FOLDER]`, each with all below it; empty for everything."""
    insecure: bool = True
    """Allow plain HTTP beyond loopback, and mirrors that a user chose."""
    shared_group: str = ""
    """Group whose members may change this machine's shared stores and caches, and are trusted with their content."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Defaults for the command, by their keys in the file."""
    path: str = ""
    """The file; empty if there is none."""

    @property
    def requires_mirrors_of_root(self) -> bool:
        """Whether `hosts.toml` files count only in a folder that root alone writes: they replace a registry."""
        return bool(self.allowed_registries) or not self.insecure

    def allows(self, registry: str, repository: str = "") -> bool:
        """Whether a repository may be read and written; without `repository`, whether any of the registry's may."""
        return not self.allowed_registries or any(
            _covers(allowed, registry, repository) for allowed in self.allowed_registries
        )

    def allows_folder(self, folder: str) -> bool:
        """Whether an OCI layout folder may be read and written."""
        path = os.path.realpath(folder)
        named = [allowed.removeprefix("oci:") for allowed in self.allowed_registries if allowed.startswith("oci:")]
        return not self.allowed_registries or any(
            f"{path}/".startswith(f"{os.path.realpath(each).rstrip('/')}/" if each else "/") for each in named
        )


def machine_policy() -> Policy:
    """The policy of this machine; without a file, an empty one.

    Raises `PolicyError` on a file that can't be read or understood: a requirement that is misspelt is not ignored.
    """
    try:
        found = os.stat(PATH)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(PATH):
            raise PolicyError(f"{PATH}: a link to a missing file; an administrator must correct or remove it") from None
        return Policy()
    except OSError as error:
        raise _unreadable(PATH, error) from error
    # A process that runs for weeks obeys a change of the file.
    return _read(PATH, found.st_ino, found.st_size, found.st_mtime_ns)


def allowing(patterns: Sequence[str]) -> Policy:
    """Return a policy that allows the registries and folders of `patterns` alone; see `Policy.allowed_registries`.

    Raises `PolicyError` for a pattern that is invalid, and without any.
    """
    for pattern in patterns:
        if not re.fullmatch(_ALLOWED, pattern, _FLAGS):
            raise PolicyError(
                f"--allow {escaped(pattern, 200)}: not a registry or repository; "
                "use HOST[:PORT][/REPOSITORY], *.DOMAIN or oci:/FOLDER"
            )
    if not patterns:
        raise PolicyError("no registry is allowed; name at least one")
    return Policy(allowed_registries=tuple(patterns))


def check_registry(registry: str, repository: str, *, insecure: bool, hosts_dir: str | None) -> None:
    """Refuse a repository that the machine's policy does not allow, or does not allow in this way.

    `insecure`: plain HTTP is asked for, beyond loopback. Raises `PolicyError`.
    """
    policy = machine_policy()
    if not policy.allows(registry, repository):
        name = f"{registry}/{repository}" if repository else registry
        raise PolicyError(
            f"{name}: not in allowed-registries of {PATH}; use one of "
            f"{', '.join(policy.allowed_registries)}, or ask an administrator"
        )
    if insecure and not policy.insecure:
        raise PolicyError(
            f"{registry}: plain HTTP is refused by {PATH}; use HTTPS, with --ca-file for a private authority"
        )
    if hosts_dir and policy.requires_mirrors_of_root and not _only_roots(hosts_dir):
        raise PolicyError(
            f"--hosts-dir {hosts_dir}: others than root can write it, which {PATH} rules out for mirrors; "
            "use /etc/containerd/certs.d"
        )


def check_folder(folder: str) -> None:
    """Refuse an OCI layout folder that the machine's policy does not allow. Raises `PolicyError`."""
    policy = machine_policy()
    if not policy.allows_folder(folder):
        raise PolicyError(
            f"oci:{folder}: not in allowed-registries of {PATH}; use one of "
            f"{', '.join(policy.allowed_registries)}, or ask an administrator"
        )


@functools.lru_cache(maxsize=4)
def _read(path: str, *_version: int) -> Policy:
    try:
        # A FIFO of that name must not stop every command.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(file, "rb") as stream:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise _invalid(path, "not a file")
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(content) > _MAX_BYTES:
        raise _invalid(path, f"longer than {size(_MAX_BYTES)}")
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        table: dict[str, Any] = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise _invalid(path, f"invalid TOML: {error}") from None
    return _parsed(path, table)


def _parsed(path: str, table: dict[str, Any]) -> Policy:
    if unknown := sorted(table.keys() - SETTINGS - _REQUIREMENTS):
        raise _invalid(path, f"unknown key {unknown[0]!r}; use {', '.join(sorted(SETTINGS | _REQUIREMENTS))}")
    insecure = table.get("insecure", True)
    if not isinstance(insecure, bool):
        raise _invalid(path, "insecure is not true or false")
    keys = _strings(path, table, "require-signature")
    for key in keys:
        if not os.path.isabs(key):
            raise _invalid(path, f"require-signature {key}: not an absolute path")
    registries = _strings(path, table, "allowed-registries")
    for registry in registries:
        if not re.fullmatch(_ALLOWED, registry, _FLAGS):
            raise _invalid(
                path, f"allowed-registries {registry}: not HOST[:PORT][/REPOSITORY], *.DOMAIN or oci:/FOLDER"
            )
    identity = _strings(path, table, "require-identity")
    if len(identity) > 1:
        raise _invalid(path, "require-identity is a list; use one string")
    if identity and not keys:
        raise _invalid(path, "require-identity without require-signature; add the key that must have signed")
    group = table.get("shared-group", "")
    if not isinstance(group, str):
        raise _invalid(path, "shared-group is not a string; use the name of one group")
    settings = {name: value for name, value in table.items() if name in SETTINGS or (name == "insecure" and value)}
    return Policy(keys, "".join(identity), registries, insecure, group, settings, path)


def _strings(path: str, table: dict[str, Any], name: str) -> tuple[str, ...]:
    value = table.get(name)
    if value is None:
        return ()
    found = [value] if isinstance(value, str) else value
    # An empty list would require nothing or forbid everything; neither can be meant.
    if not isinstance(found, list) or not found or not all(isinstance(each, str) and each for each in found):
        raise _invalid(path, f"{name} is not a string or a list of strings")
    return tuple(found)


def _covers(allowed: str, registry: str, repository: str) -> bool:
    host, _, path = allowed.partition("/")
    registry, host = registry.lower(), host.lower()
    same = registry.endswith(host[1:]) if host.startswith("*.") else registry == host
    return same and (not path or not repository or f"{repository}/".startswith(f"{path}/"))


def _only_roots(folder: str) -> bool:
    found = os.path.realpath(folder)
    while True:
        try:
            here = os.stat(found)
        except OSError:
            return False
        if here.st_uid != 0 or here.st_mode & 0o022:
            return False
        if found == "/":
            return True
        found = os.path.dirname(found)


def _invalid(path: str, problem: str) -> PolicyError:
    return PolicyError(f"{path}: {escaped(problem, 300)}; an administrator must correct it")


def _unreadable(path: str, error: OSError) -> PolicyError:
    return PolicyError(f"{path}: {error.strerror}; an administrator must let every user read it")
