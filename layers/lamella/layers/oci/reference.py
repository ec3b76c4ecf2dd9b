"""References: where an environment is, or goes.

`registry/repository:tag@digest`, or `oci:FOLDER:tag` for an OCI layout on disk. The grammar of the first is
distribution's (reference/regexp.go), with its rule that a first component without a dot, a colon and the name
`localhost` belongs to docker.io.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from lamella.layers.errors import InvalidContent, InvalidReference
from lamella.layers.oci.documents import Digest
from lamella.layers.settings.homes import expanded
from lamella.layers.text import escaped

_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG_PROBLEM = "not a tag; use letters, digits, '_', '.' and '-', the first not '.' or '-', at most 128"
_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Reference:
    """One parsed reference: `folder` for a layout, else `registry` and `repository`; `tag` or `digest` or both."""

    registry: str = ""
    repository: str = ""
    folder: str = ""
    tag: str = ""
    digest: Digest | None = None

    def __str__(self) -> str:
        name = f"oci:{self.folder}" if self.folder else f"{self.registry}/{self.repository}"
        tag = f":{self.tag}" if self.tag else ""
        return f"{name}{tag}{f'@{self.digest}' if self.digest else ''}"

    @property
    def is_layout(self) -> bool:
        """Whether this names a folder on disk, not a registry."""
        return bool(self.folder)

    @property
    def place(self) -> str:
        """The repository, or the folder by its absolute path: equal for two references to one place."""
        return f"oci:{os.path.abspath(self.folder)}" if self.is_layout else f"{self.registry}/{self.repository}"

    def absolute(self) -> Reference:
        """The same, with the absolute path of a folder: readers have working directories of their own."""
        return replace(self, folder=os.path.abspath(self.folder)) if self.is_layout else self

    def at(self, digest: Digest) -> Reference:
        """The same place, pinned to `digest`."""
        return replace(self, digest=digest)

    def at_tag(self, tag: str) -> Reference:
        """The same repository or folder with `tag`, and no digest."""
        return replace(self, tag=tag, digest=None)

    @classmethod
    def parse(cls, text: str) -> Reference:
        """`text` as a reference, with the tag `latest` if it names neither tag nor digest; else `InvalidReference`."""
        if scheme := re.match(r"(?:file|oci-layout)://(?=[/.])", text):
            raise InvalidReference(f"{_shown(text)}: a URL; write oci:{_shown(text[scheme.end() :])}")
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", text):
            raise InvalidReference(
                f"{_shown(text)}: a URL; write it without scheme and user, such as ghcr.io/team/envs:v1"
            )
        name, at, digest_text = text.partition("@") if not text.startswith("oci:") else _split_layout_digest(text)
        digest = None
        if at:
            try:
                digest = Digest.parse(digest_text)
            except InvalidContent:
                if "/" in digest_text and "/" not in name:
                    raise InvalidReference(f"{_shown(text)}: has a user; leave it out, and use lamella login") from None
                problem = "invalid digest" if digest_text else "missing digest after @"
                raise InvalidReference(
                    f"{_shown(text)}: {problem}; write sha256: or sha512: and lower-case hex"
                ) from None
        if name.startswith("oci:"):
            return _layout(text, name.removeprefix("oci:"), digest)
        return _registry(text, name, digest)


def is_tag(value: object) -> bool:
    """Return whether `value`, as a registry's list has it, can be a reference's tag."""
    return isinstance(value, str) and bool(_TAG.fullmatch(value))


def is_registry(name: str) -> bool:
    """Whether `name` can be a reference's registry: a host with an optional port."""
    return bool(_HOST.fullmatch(name))


def _split_layout_digest(text: str) -> tuple[str, str, str]:
    # A folder's name may hold an @; a digest has a colon behind it.
    name, at, digest = text.rpartition("@")
    return (name, at, digest) if at and re.fullmatch(r"sha(256|512):[0-9a-f]*", digest) else (text, "", "")


def _layout(text: str, rest: str, digest: Digest | None) -> Reference:
    folder, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        folder, tag = rest, "" if digest else "latest"
        colon = ""
    if not folder or "\0" in folder:
        raise InvalidReference(f"{_shown(text)}: names no folder; write oci:FOLDER:TAG")
    if colon:
        _check_tag(text, tag)
    # No shell expands it behind oci:, and a folder of that name would be made.
    return Reference(folder=expanded(folder) if folder.startswith("~") else folder, tag=tag, digest=digest)


def _registry(text: str, name: str, digest: Digest | None) -> Reference:
    shown = _shown(text)
    if re.match(r"/|~|\.", text):
        tag = "" if ":" in text.rpartition("/")[2] else ":TAG"
        raise InvalidReference(f"{shown}: a path; write oci:{shown}{tag} for an OCI layout folder")
    head, slash, rest = name.partition("/")
    if not slash and re.fullmatch(r"localhost|[^:]*\.[^:]*|(?:localhost|[^:]*\.[^:]*|\[.*\]):[0-9]+", name):
        raise InvalidReference(f"{shown}: a registry without a repository; write {shown}/REPOSITORY:TAG")
    if slash and ("." in head or ":" in head or head == "localhost" or head.lower() != head):
        registry = head
    else:
        registry, rest = "docker.io", name
    repository, colon, tag = rest.partition(":")
    if registry == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    if not _HOST.fullmatch(registry):
        raise InvalidReference(f"{shown}: the registry is not a host name with an optional port; write HOST[:PORT]")
    if not repository or repository.endswith("/"):
        raise InvalidReference(f"{shown}: missing repository; write REGISTRY/REPOSITORY:TAG")
    if not _REPOSITORY.fullmatch(repository):
        raise InvalidReference(
            f"{shown}: not a repository; use lower-case letters, digits, and single '.', '_', '-' and '/' between them"
        )
    if colon:
        _check_tag(text, tag)
    return Reference(registry, repository, tag=tag or ("" if digest else "latest"), digest=digest)


def _check_tag(text: str, tag: str) -> None:
    if not tag:
        raise InvalidReference(f"{_shown(text)}: missing tag after the colon; add one, such as v1")
    if not _TAG.fullmatch(tag):
        raise InvalidReference(f"{_shown(text)}: {_TAG_PROBLEM}")


def _shown(text: str) -> str:
    # The password of user:password@host must not end in a log.
    shown = escaped(re.sub(r"[^/@]*:[^/@]*@(?!sha)", "***@", text), 200)
    # Quoted if its end would run into the message's own colon.
    return f"'{shown}'" if not text or re.search(r"\s|[:@]$", text) else shown
