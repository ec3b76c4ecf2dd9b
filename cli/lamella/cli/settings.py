"""Settings: a flag, then a LAMELLA_* variable, then a key of [tool.lamella], then a default.

One definition gives the flag, the variable and the key, so that they can't differ.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lamella.layers import Trust

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})


class UsageError(Exception):
    """Invalid command line, variable or project setting; exit code 2."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting. `name` is the flag without its dashes and the key in pyproject.toml."""

    name: str
    help: str
    default: str | int | bool | None = None
    choices: tuple[str, ...] = ()
    metavar: str = ""
    kind: type[str | int | bool] = str

    @property
    def attribute(self) -> str:
        """Attribute of argparse's namespace."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return f"LAMELLA_{self.attribute.upper()}"

    def add_to(self, parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
        """Add the flag."""
        about = self.help if self.default in (None, False) else f"{self.help} (default: {self.default})"
        if self.kind is bool:
            parser.add_argument(f"--{self.name}", action="store_true", default=None, help=about)
        else:
            parser.add_argument(
                f"--{self.name}",
                choices=self.choices or None,
                metavar=None if self.choices else self.metavar or self.name.upper(),
                help=about,
            )

    def value_of(self, found: object, where: str) -> str | int | bool:
        """Return `found` as this setting's value; raise `UsageError` if it is invalid.

        `where` names the variable or the key of the project file.
        """
        if self.kind is bool:
            if isinstance(found, bool):
                return found
            if str(found).lower() in _TRUE | _FALSE:
                return str(found).lower() in _TRUE
            raise UsageError(f"{where} {quoted(found)}: not a boolean; use true or false")
        if self.kind is int:
            try:
                return int(str(found))
            except ValueError:
                raise UsageError(f"{where} {quoted(found)}: not a whole number") from None
        if not isinstance(found, str):
            raise UsageError(f"{where} {quoted(found)}: not a string")
        if self.choices and found not in self.choices:
            raise UsageError(f"{where} {quoted(found)}: invalid choice; use {' or '.join(self.choices)}")
        return found


STORE = Setting(
    "store",
    "store of unpacked layers (default: in the user's cache folder; for root, /var/lib/lamella)",
    metavar="FOLDER",
)
INSECURE = Setting(
    "insecure", "use plain HTTP for the registry (default: only for localhost)", kind=bool, default=False
)
PLATFORM = Setting("platform", "platform to select, such as linux/arm64 (default: this machine's)", metavar="OS/ARCH")
RECORDED_PLATFORM = Setting(
    "platform", "platform to record, such as linux/arm64/v8 (default: the interpreter's)", metavar="OS/ARCH"
)
IMAGE_PREFIX = Setting("image-prefix", "path of the environment on nodes", default="/opt/env", metavar="PATH")
BASE = Setting(
    "base",
    "base image of the runnable image (default: none, the environment alone)",
    metavar="REFERENCE",
)
COMPRESSION = Setting("compression", "compression of layers", default="zstd", choices=("zstd", "gzip"))
MAX_LAYERS = Setting(
    "max-layers",
    "maximum number of layers in the runnable image; small packages share layers",
    default=100,
    kind=int,
    metavar="NUMBER",
)
CACHE = Setting(
    "cache",
    "cache of built layers and file hashes (default: in the user's cache folder)",
    metavar="FOLDER",
)
METHOD = Setting(
    "method",
    "how to assemble the environment: a mount, a folder of links, or copies; auto takes the first that works",
    default="auto",
    choices=("auto", "overlay", "options", "hardlinks", "reflinks", "copies"),
)
CA_FILE = Setting("ca-file", "certificate authorities to trust, besides the system's", metavar="FILE")
HOSTS_DIR = Setting(
    "hosts-dir",
    "mirrors and certificates by registry, as for containerd (FOLDER/HOST/hosts.toml)",
    metavar="FOLDER",
)
REQUIRE_SIGNATURE = Setting(
    "require-signature",
    "refuse an environment without a signature that this public key verifies",
    metavar="KEY",
)
FAIL_ON = Setting(
    "fail-on",
    "exit with code 1 if a finding is this severe or worse",
    default="never",
    choices=("never", "warning", "error"),
)
LOCAL = Setting(
    "local",
    "ship the code in this folder, or none if empty (default: the working directory, if it is a project)",
    metavar="FOLDER",
)

REGISTRY = (INSECURE, CA_FILE, HOSTS_DIR)
"""Settings of verbs that talk to a registry."""
EVERY = (
    STORE,
    INSECURE,
    PLATFORM,
    IMAGE_PREFIX,
    BASE,
    COMPRESSION,
    MAX_LAYERS,
    CACHE,
    METHOD,
    FAIL_ON,
    LOCAL,
    CA_FILE,
    HOSTS_DIR,
    REQUIRE_SIGNATURE,
)


def add_settings(parser: argparse.ArgumentParser, settings: Sequence[Setting]) -> None:
    """Add the flags of `settings`, those of the registry in a group of their own."""
    registry = None
    for setting in settings:
        if setting in REGISTRY or setting is REQUIRE_SIGNATURE:
            registry = registry or parser.add_argument_group("registry")
            setting.add_to(registry)
        else:
            setting.add_to(parser)


def fill(arguments: argparse.Namespace, settings: Sequence[Setting], folder: str = ".") -> None:
    """Fill in `settings` without a flag: from variables, the project that `folder` is in, or defaults."""
    for setting in settings:
        # A number is checked here, so that its message is the same as that of a variable.
        if setting.kind is int and (flag := getattr(arguments, setting.attribute)) is not None:
            setattr(arguments, setting.attribute, setting.value_of(flag, f"--{setting.name}"))
    wanted = [setting for setting in settings if getattr(arguments, setting.attribute) is None]
    project: dict[str, Any] | None = None
    where = ""
    for setting in wanted:
        if setting.variable in os.environ:
            value: object = setting.value_of(os.environ[setting.variable], setting.variable)
        else:
            if project is None:
                where, project = _project(folder)
            value = setting.default
            if setting.name in project:
                value = setting.value_of(project[setting.name], f"{where}: {setting.name}")
        setattr(arguments, setting.attribute, value)


def trust_of(arguments: argparse.Namespace) -> Trust:
    """Return the command's `Trust`. A variable also applies without its flag, or if that is empty."""
    from lamella.layers import Trust

    def value(setting: Setting) -> str | None:
        return getattr(arguments, setting.attribute, None) or os.environ.get(setting.variable) or None

    return Trust(value(REQUIRE_SIGNATURE), value(CA_FILE), value(HOSTS_DIR), bool(arguments.insecure))


def quoted(value: object) -> str:
    """Return a setting's value for a message: quoted as a shell would if it is empty or has spaces."""
    from shlex import quote

    return quote(str(value))


def _project(folder: str) -> tuple[str, dict[str, Any]]:
    # The nearest pyproject.toml counts, as for other tools, even if it has no [tool.lamella].
    here = os.path.abspath(folder)
    while True:
        path = os.path.join(here, "pyproject.toml")
        try:
            with open(path, "rb") as file:
                return path, _table(path, file.read())
        except (FileNotFoundError, NotADirectoryError):
            pass
        except PermissionError:
            return path, {}
        if os.path.dirname(here) == here:
            return "", {}
        here = os.path.dirname(here)


def _table(path: str, content: bytes) -> dict[str, Any]:
    if b"lamella" not in content:
        return {}
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        parsed = tomllib.loads(content.decode())
    except ValueError as error:
        raise UsageError(f"{path}: invalid TOML: {error}") from None
    tool = parsed.get("tool")
    table = tool.get("lamella", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise UsageError(f"{path}: tool.lamella is not a table; write [tool.lamella]")
    keys = {setting.name for setting in EVERY}
    if unknown := sorted(set(table) - keys):
        raise UsageError(f"{path}: unknown key {unknown[0]!r} in [tool.lamella]; use {', '.join(sorted(keys))}")
    return table
