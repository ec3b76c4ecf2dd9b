"""Settings: a flag, then a LAMELLA_* variable, then a key of a file (see `configuration`), then a default.

One definition gives the flag, the variable and the key, so that they can't differ.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from lamella.cli.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lamella.layers import Platform, Trust

Value = str | int | bool | list[str]

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})


class Setting(NamedTuple):
    """A setting. `name` is the flag without its dashes and the key in a file.

    A list has a repeatable flag; its variable separates the parts as PATH does.
    """

    name: str
    help: str
    default: Value | None = None
    choices: tuple[str, ...] = ()
    metavar: str = ""
    kind: type[Value] = str

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
        about = self.help if self.default in (None, False, []) else f"{self.help} (default: {self.default})"
        if self.kind is bool:
            parser.add_argument(f"--{self.name}", action="store_true", default=None, help=about)
        elif self.kind is list:
            parser.add_argument(f"--{self.name}", action="append", metavar=self.metavar, help=f"{about}; repeatable")
        else:
            parser.add_argument(
                f"--{self.name}",
                choices=self.choices or None,
                metavar=None if self.choices else self.metavar or self.name.upper(),
                help=about,
            )

    def from_environment(self) -> Value | None:
        """Return the variable's value; None without the variable. Raises `UsageError`."""
        text = os.environ.get(self.variable)
        if text is None:
            return None
        return self.value_of(
            [each for each in text.split(os.pathsep) if each] if self.kind is list else text, self.variable
        )

    def value_of(self, found: object, where: str) -> Value:
        """Return `found` as this setting's value; raise `UsageError` if it is invalid.

        `where` names the variable or the key of the file.
        """
        if self.kind is list:
            if isinstance(found, list) and all(isinstance(each, str) and each for each in found):
                return found
            raise UsageError(f"{where} {quoted(found)}: not a list of strings")
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
TARGET_PLATFORMS = Setting(
    "platform",
    "platforms of the nodes, such as linux/arm64 or linux/amd64,linux/arm64; packages are resolved for one that the "
    "environment is not for (default: the interpreter's)",
    metavar="OS/ARCH",
)
MATCH = Setting(
    "match",
    "how far a version for another platform may be from the installed one: the same; the newest of the same "
    "major.minor; any (default: exact from Linux, minor from other systems)",
    choices=("exact", "minor", "none"),
)
EXACT = Setting("exact", "keep the version of this package on another platform", default=[], kind=list, metavar="NAME")
GLIBC = Setting("glibc", "oldest glibc of the nodes of another platform", default="2.28", metavar="VERSION")
CUDA = Setting("cuda", "CUDA version of the nodes' driver, for conda packages of another platform", metavar="VERSION")
PYTHON_FROM = Setting(
    "python-from",
    "image, reference or folder with the interpreter for another platform (default: an environment in the repository)",
    metavar="SOURCE",
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
ELSEWHERE = Setting(
    "elsewhere",
    "programs will run in another container: check this machine's CPU, not this system's C library and drivers",
    default=False,
    kind=bool,
)
CA_FILE = Setting("ca-file", "certificate authorities to trust, besides the system's", metavar="FILE")
HOSTS_DIR = Setting(
    "hosts-dir",
    "mirrors and certificates by registry, as for containerd (FOLDER/HOST/hosts.toml)",
    metavar="FOLDER",
)
REQUIRE_SIGNATURE = Setting(
    "require-signature",
    "refuse an image without a signature that this public key verifies",
    metavar="KEY",
)
REQUIRE_IDENTITY = Setting(
    "require-identity",
    "refuse a signature that does not name this REGISTRY/REPOSITORY, or `reference` for the one that is read "
    "(default: a signature counts in every repository)",
    metavar="NAME",
)
INCLUDE = Setting("include", "ship this file or folder too", default=[], kind=list, metavar="PATH")
IGNORE = Setting("ignore", "leave this package out", default=[], kind=list, metavar="NAME")
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
NODE_IMAGE = Setting(
    "node-image",
    "image with the lamella command, for init containers and the agent; make node-image builds it",
    metavar="IMAGE",
)

REGISTRY = (INSECURE, CA_FILE, HOSTS_DIR)
"""Settings of verbs that talk to a registry."""
TRUST = (*REGISTRY, REQUIRE_SIGNATURE, REQUIRE_IDENTITY)
"""Settings of verbs that use what a registry has."""
EVERY = (
    STORE,
    INSECURE,
    PLATFORM._replace(
        help="platform to select, such as linux/arm64 (default: this machine's); for scan and push, of the nodes",
    ),
    IMAGE_PREFIX,
    BASE,
    COMPRESSION,
    MAX_LAYERS,
    CACHE,
    METHOD,
    ELSEWHERE,
    FAIL_ON,
    LOCAL,
    CA_FILE,
    HOSTS_DIR,
    REQUIRE_SIGNATURE,
    REQUIRE_IDENTITY,
    INCLUDE,
    IGNORE,
    NODE_IMAGE,
    MATCH,
    EXACT,
    GLIBC,
    CUDA,
    PYTHON_FROM,
)


def add_settings(parser: argparse.ArgumentParser, settings: Sequence[Setting]) -> None:
    """Add the flags of `settings`, those of the registry in a group of their own."""
    registry = None
    for setting in settings:
        if setting in TRUST:
            registry = registry or parser.add_argument_group("registry")
            setting.add_to(registry)
        else:
            setting.add_to(parser)


def fill(arguments: argparse.Namespace, settings: Sequence[Setting], folder: str = ".") -> None:
    """Fill in `settings` without a flag: from variables, the files that apply in `folder`, or defaults.

    `given` names those with a flag, by attribute. A verb that talks to a registry gets every setting of trust, also those that it has no flag for.
    """
    arguments.given = frozenset(
        setting.attribute for setting in settings if getattr(arguments, setting.attribute) is not None
    )
    for setting in settings:
        if setting in (STORE, CACHE) and getattr(arguments, setting.attribute) == "":
            # "$UNSET" in a script: not the default folder, which `gc` would free.
            raise UsageError(f"--{setting.name}: empty {setting.metavar}; name a folder, or leave out --{setting.name}")
        # A number is checked here, so that its message is the same as that of a variable.
        if setting.kind is int and (flag := getattr(arguments, setting.attribute)) is not None:
            setattr(arguments, setting.attribute, setting.value_of(flag, f"--{setting.name}"))
    trusted = TRUST if INSECURE in settings else ()
    wanted = [setting for setting in settings if getattr(arguments, setting.attribute) is None]
    # An empty flag does not switch a requirement off.
    wanted += [setting for setting in trusted if not getattr(arguments, setting.attribute, None)]
    if not wanted:
        _expand_homes(arguments, settings)
        return
    from lamella.cli.configuration import files

    sources = files(folder, {setting.name for setting in EVERY})
    for setting in wanted:
        value = setting.from_environment()
        if value is None:
            value = setting.default
            source = next((source for source in sources if setting.name in source.values), None)
            if source:
                value = setting.value_of(source.values[setting.name], f"{source.path}: {setting.name}")
        setattr(arguments, setting.attribute, value)
    _expand_homes(arguments, settings)


def _expand_homes(arguments: argparse.Namespace, settings: Sequence[Setting]) -> None:
    """Put the home in place of a ~ that no shell expanded: `--store=~/store`, or a variable of a unit or manifest."""
    for setting in settings:
        value = getattr(arguments, setting.attribute)
        if setting.metavar in {"FOLDER", "FILE", "KEY"} and isinstance(value, str) and value.startswith("~"):
            from lamella.layers.settings.homes import expanded

            setattr(arguments, setting.attribute, expanded(value))


OTHERS = ("LAMELLA_DEBUG", "LAMELLA_LOG", "LAMELLA_TERMINATION_LOG")
"""Variables that are not settings."""
# A Kubernetes service that is called lamella-... gives each pod variables of its own.
_OF_KUBERNETES = r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"


def check_variables(*, quiet: bool) -> None:
    """Remark on LAMELLA_* variables that nothing reads, such as misspelled ones."""
    named = [name for name in os.environ if name.startswith("LAMELLA_")]
    if not named:
        return
    known = {*OTHERS, *(setting.variable for setting in EVERY)}
    for name in sorted(set(named) - known):
        if not re.fullmatch(_OF_KUBERNETES, name):
            from lamella.cli.output import remark
            from lamella.cli.suggestions import similar

            # Without the prefix, which every name shares.
            meant = similar(name.removeprefix("LAMELLA_"), [each.removeprefix("LAMELLA_") for each in known])
            hint = f"did you mean LAMELLA_{meant}?" if meant else "see lamella help"
            remark(f"lamella: {name}: unknown variable, ignored; {hint}", quiet=quiet)


def trust_of(arguments: argparse.Namespace) -> Trust:
    """Return the command's `Trust`, from arguments that were filled in."""
    from lamella.layers import Trust

    return Trust(
        arguments.require_signature or None,
        arguments.ca_file or None,
        arguments.hosts_dir or None,
        bool(arguments.insecure),
        arguments.require_identity or "",
    )


def platform_of(arguments: argparse.Namespace) -> Platform | None:
    """Return the platform that --platform names; None without one. Raises `UsageError`, also for several."""
    found = platforms_of(arguments)
    if found[1:]:
        raise UsageError(f"--platform {quoted(arguments.platform)}: several platforms; name one")
    return found[0] if found else None


def platforms_of(arguments: argparse.Namespace) -> tuple[Platform, ...]:
    """Return the platforms that --platform names, separated by commas, each once. Raises `UsageError`."""
    from lamella.layers import InvalidContent, Platform

    try:
        names = [name.strip() for name in arguments.platform.split(",")] if arguments.platform else []
        return tuple(dict.fromkeys(map(Platform.parse, names)))
    except InvalidContent as error:
        problem = str(error).rpartition(": ")[2]
        raise UsageError(f"--platform {quoted(arguments.platform)}: {problem}") from None


def quoted(value: object) -> str:
    """Return a setting's value for a message: quoted as a shell would if it is empty or has spaces."""
    from shlex import quote

    return quote(str(value))
