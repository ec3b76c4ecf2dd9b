"""Nouns of where packages come from: package indexes in order, with credentials that are never shown. No I/O."""

from __future__ import annotations

import os
import posixpath
from base64 import b64encode
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

from lamella.builder.indexes.settings_files import InvalidIndexSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lamella.layers.published.findings import Finding

PYPI = "https://pypi.org/simple"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Strategy = Literal["first-index", "unsafe-first-match", "unsafe-best-match"]
"""uv's names: a package is taken from the first index that has it, or from any of them (pip)."""
Authenticate = Literal["auto", "always", "never"]
"""uv's names: whether an index may, must or must not get a login."""


@dataclass(frozen=True, slots=True)
class Login:
    """User and password of an index."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PackageIndex:
    """A package index that speaks the simple repository API (PEP 503, PEP 691)."""

    url: str
    """Without credentials, query and trailing slash."""
    name: str = ""
    """uv's name of it; empty for none."""
    explicit: bool = False
    """Only for the packages that are pinned to it."""
    login: Login | None = None
    authenticate: Authenticate = "auto"
    query: str = field(default="", repr=False)
    """Of its URL, without the question mark: it may hold a token, and goes with requests alone."""


@dataclass(frozen=True, slots=True)
class Indexes:
    """The indexes to look in, the most preferred first; the last one is the default of uv and pip."""

    indexes: tuple[PackageIndex, ...] = (PackageIndex(PYPI),)
    pins: Mapping[str, str] = field(default_factory=dict)
    """URL of the one index of a package, by its normalised name."""
    find_links: tuple[PackageIndex, ...] = ()
    """Pages with links to wheels, and folders of them by absolute path."""
    strategy: Strategy = "first-index"
    hosts: Mapping[str, Login] = field(default_factory=dict)
    """Logins of netrc by host, for files that an index keeps on another server."""
    findings: tuple[Finding, ...] = ()
    """Problems of the settings that they were read from."""

    def for_package(self, name: str) -> tuple[PackageIndex, ...]:
        """Return the indexes that may be asked for the package `name`, the most preferred first."""
        pinned = self.pins.get(name)
        if pinned:
            return tuple(each for each in self.indexes if each.url == pinned) or (PackageIndex(pinned),)
        return tuple(each for each in self.indexes if not each.explicit)

    def login_for(self, url: str, index: str = "") -> Login | None:
        """Return the login for `url`: of the nearest index on the same server, else netrc's for its host.

        The nearest one has the longest path in common with `url`. Between several, `index` decides, the URL of the one
        that names `url`; if that is not among them, they must have one login. netrc's login goes over HTTPS or to this
        machine only: an index must not have it sent in the clear.
        """
        origin = _origin(url)
        here = [each for each in self._places() if _origin(each.url) == origin]
        common = {each.url: _common(each.url, url) for each in here}
        nearest = [each for each in here if common[each.url] == max(common.values())]
        nearest = [each for each in nearest if each.url == index] or nearest
        if any(each.authenticate == "never" for each in nearest):
            return None
        logins = {each.login for each in nearest if each.login}
        if logins:
            return logins.pop() if len(logins) == 1 else None
        return self.hosts.get(origin[1]) if origin[0] == "https" or origin[1] in _LOOPBACK else None

    def beside_a_login(self, index: PackageIndex) -> bool:
        """Whether `index` has no login, and another one on its server has one, which must not go to it."""
        origin = _origin(index.url)
        return not index.login and any(each.login and _origin(each.url) == origin for each in self._places())

    def have_several_logins_on_a_server(self) -> bool:
        """Whether two of these indexes on one server have different logins."""
        logins = {(_origin(each.url), each.login) for each in self._places() if each.login}
        return len({origin for origin, _ in logins}) < len(logins)

    def hidden(self, text: str) -> str:
        """Return `text` without the passwords of these indexes, in any form that a server may send back."""
        logins = [each.login for each in self._places() if each.login]
        secrets = {form for login in (*logins, *self.hosts.values()) for form in _forms(login)}
        secrets |= {each.query for each in self._places() if each.query}
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, "****")
        return text

    def index_of(self, url: str) -> str:
        """Return the configured URL of the index that a tool wrote as `url`; `url` itself for an index without settings."""
        bare = url.rstrip("/")
        return next((each.url for each in self._places() if each.url.rstrip("/") == bare), bare)

    def has_file(self, url: str) -> bool:
        """Whether the file of this machine at `url` is below a folder that is configured as an index or find-links."""
        path = _path(url)
        folders = (_path(each.url) for each in self._places() if not each.url.startswith(("http:", "https:")))
        return any(path.startswith(os.path.join(folder, "")) for folder in folders)

    def _places(self) -> tuple[PackageIndex, ...]:
        return (*self.indexes, *self.find_links)


def parsed(url: str, setting: str, *, name: str = "", explicit: bool = False) -> PackageIndex:
    """Return the index at `url`, with the login and the query that the URL holds apart from it.

    `setting` names where it is from. Raises `InvalidIndexSettings`.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # The error's own text has a piece of the password.
        raise InvalidIndexSettings(f"{setting}: not the URL of an index; percent-encode the password") from None
    user, at, host = parts.netloc.rpartition("@")
    login = None
    if at:
        name_part, _, password = user.partition(":")
        login = Login(unquote(name_part), unquote(password))
    bare = urlunsplit((parts.scheme, host, parts.path, "", "")).rstrip("/")
    return PackageIndex(bare, name, explicit, login, query=parts.query)


def link_page(link: str, setting: str, name: str = "") -> PackageIndex:
    """Return the page or folder that `link` of find-links names; a slash at its end stays, since its links depend on it.

    Raises `InvalidIndexSettings`.
    """
    if "://" not in link:
        return PackageIndex(link, name)
    page = parsed(link, setting, name=name)
    return replace(page, url=f"{page.url}/") if urlsplit(link).path.endswith("/") else page


def with_login(index: PackageIndex) -> str:
    """Return the URL of `index` with its login and query, for a tool's environment and never for a message."""
    if index.login is None:
        return with_query(index)
    parts = urlsplit(with_query(index))
    login = f"{quote(index.login.user, safe='')}:{quote(index.login.password, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc}"))


def with_query(index: PackageIndex, path: str = "") -> str:
    """Return the URL of `path` below `index` with its query, for a request and never for a message."""
    return f"{index.url}{path}?{index.query}" if index.query else f"{index.url}{path}"


def without_repeats(indexes: Iterable[PackageIndex]) -> tuple[PackageIndex, ...]:
    """Return each index once, at its first place."""
    found: dict[str, PackageIndex] = {}
    for each in indexes:
        found.setdefault(each.url, each)
    return tuple(found.values())


def _forms(login: Login) -> Iterator[str]:
    pair = b64encode(f"{login.user}:{login.password}".encode()).decode()
    # A token is the user's name of some servers.
    for secret in (login.password or login.user,):
        # A short one is part of words.
        if len(secret) > 2:
            yield from (secret, quote(secret, safe=""), pair)


def _common(one: str, other: str) -> int:
    """Number of folders that the paths of two URLs begin with alike."""
    # A client resolves dots before it sends a request.
    paths = [posixpath.normpath(f"/{unquote(urlsplit(each).path)}").lstrip("/") for each in (one, other)]
    return len(posixpath.commonprefix([[part for part in path.split("/") if part] for path in paths]))


def _path(place: str) -> str:
    path = url2pathname(urlsplit(place).path) if place.startswith("file:") else place
    return os.path.abspath(path)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        port = None
    return parts.scheme, parts.hostname or "", port
