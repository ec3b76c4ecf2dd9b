"""Options that may also come from the environment and from the project: flag, then LAMELLA_*, then [tool.lamella].

One definition gives the flag, the variable and the key, so that the three can't differ.
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

    from lamella.layers.trust import Trust

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})


class UsageError(Exception):
    """A command line, variable or project file that asks for what can't be; exit code 2."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One such option. `name` is the flag without its dashes and the key in pyproject.toml."""

    name: str
    help: str
    default: str | int | bool | None = None
    choices: tuple[str, ...] = ()
    metavar: str = ""
    kind: type[str | int | bool] = str
    by_variable: bool = False
    """The packages below read the variable themselves; a flag or the project sets it for this process."""

    @property
    def attribute(self) -> str:
        """Where argparse keeps it."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable's name."""
        return f"LAMELLA_{self.attribute.upper()}"

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Adds the flag."""
        about = self.help if self.default in (None, False) else f"{self.help} (default: {self.default})"
        if self.kind is bool:
            parser.add_argument(f"--{self.name}", action="store_true", default=None, help=about)
        else:
            parser.add_argument(
                f"--{self.name}",
                type=self.kind,
                choices=self.choices or None,
                metavar=None if self.choices else self.metavar or self.name.upper(),
                help=about,
            )

    def value_of(self, found: object, where: str) -> str | int | bool:
        """`found` in `where` (a variable or a project file) as this setting's value, else `UsageError`."""
        if self.kind is bool:
            if isinstance(found, bool):
                return found
            if str(found).lower() in _TRUE | _FALSE:
                return str(found).lower() in _TRUE
            raise UsageError(f"{where} is {found!r}: want true or false")
        if self.kind is int:
            try:
                return int(str(found))
            except ValueError:
                raise UsageError(f"{where} is {found!r}: want a whole number") from None
        if not isinstance(found, str):
            raise UsageError(f"{where} is {found!r}: want a string")
        if self.choices and found not in self.choices:
            raise UsageError(f"{where} is {found!r}: want one of {', '.join(self.choices)}")
        return found


STORE = Setting(
    "store", "the store of unpacked layers (default: the user's cache folder; root: /var/lib/lamella)", metavar="FOLDER"
)
INSECURE = Setting("insecure", "plain HTTP to the registry, also beyond this machine", kind=bool, default=False)
PLATFORM = Setting(
    "platform", "which platform of the reference, such as linux/arm64 (default: this machine's)", metavar="OS/ARCH"
)
RECORDED_PLATFORM = Setting(
    "platform", "the platform to record, such as linux/arm64/v8 (default: the interpreter's own)", metavar="OS/ARCH"
)
IMAGE_PREFIX = Setting("image-prefix", "where the environment lives on nodes", default="/opt/env", metavar="PATH")
BASE = Setting(
    "base",
    "the image to put the environment on; without it the runnable image holds the environment alone",
    metavar="REFERENCE",
)
COMPRESSION = Setting("compression", "how layers are compressed", default="zstd", choices=("zstd", "gzip"))
MAX_LAYERS = Setting(
    "max-layers",
    "how many layers the runnable image may have; small packages share some",
    default=100,
    kind=int,
    metavar="NUMBER",
)
CACHE = Setting(
    "cache",
    "the cache of built layers and of files' hashes (default: in the user's cache folder)",
    metavar="FOLDER",
    by_variable=True,
)
METHOD = Setting(
    "method",
    "how to assemble the environment: mounts, then folders of links, then copies; auto takes the first that works",
    default="auto",
    choices=("auto", "overlay", "options", "hardlinks", "reflinks", "copies"),
)
CA_FILE = Setting("ca-file", "certificate authorities to trust besides the system's", metavar="FILE")
HOSTS_DIR = Setting(
    "hosts-dir",
    "mirrors and certificates for each registry, as containerd's hosts.toml",
    metavar="FOLDER",
)
REQUIRE_SIGNATURE = Setting(
    "require-signature", "use nothing that the holder of this public key did not sign", metavar="KEY"
)
FAIL_ON = Setting(
    "fail-on",
    "end with exit code 1 where a finding is as bad as this",
    default="never",
    choices=("never", "warning", "error"),
)
LOCAL = Setting(
    "local",
    "ship the code of this folder, too (default: of the working directory, where that is a project's); empty for none",
    metavar="FOLDER",
)

REGISTRY = (INSECURE, CA_FILE, HOSTS_DIR)
"""What a verb needs that talks to a registry."""
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


def fill(arguments: argparse.Namespace, settings: Sequence[Setting], folder: str = ".") -> None:
    """Gives each of `settings` that no flag gave its value from the environment, the project in `folder`, or its default."""
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
                value = setting.value_of(project[setting.name], f"{setting.name} in {where}")
        setattr(arguments, setting.attribute, value)
    for setting in settings:
        if setting.by_variable and getattr(arguments, setting.attribute):
            os.environ[setting.variable] = str(getattr(arguments, setting.attribute))


def trust_of(arguments: argparse.Namespace) -> Trust:
    """What the command trusts. A variable also applies to verbs that lack its flag, and if the flag is empty."""
    from lamella.layers.trust import Trust

    def value(setting: Setting) -> str | None:
        return getattr(arguments, setting.attribute, None) or os.environ.get(setting.variable) or None

    return Trust(value(REQUIRE_SIGNATURE), value(CA_FILE), value(HOSTS_DIR), bool(arguments.insecure))


def _project(folder: str) -> tuple[str, dict[str, Any]]:
    # The nearest pyproject.toml counts, as for other tools, even when it does not name lamella.
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
        found = tomllib.loads(content.decode())
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    tool = found.get("tool")
    table = tool.get("lamella", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise UsageError(f"tool.lamella in {path} is not a table: write [tool.lamella]")
    known = {setting.name for setting in EVERY}
    if unknown := sorted(set(table) - known):
        raise UsageError(f"[tool.lamella] in {path} has {unknown[0]!r}: want one of {', '.join(sorted(known))}")
    return table
