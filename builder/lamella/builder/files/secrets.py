"""Find files with credentials, which never ship: by name, and by content if the name is ambiguous."""

from __future__ import annotations

import re

from lamella.builder.files.small_file import read_small

VCS = frozenset({".git", ".hg", ".svn", ".bzr", "CVS", "_darcs", ".jj", ".pijul"})
"""Folders of version control systems: histories, and passwords of remotes."""

_NAMES = frozenset(
    [
        ".netrc",
        "_netrc",
        ".pypirc",
        ".git-credentials",
        ".env",
        ".envrc",
        ".secrets",
        ".secrets.toml",
        ".secrets.yaml",
        ".secrets.json",
        ".pgpass",
        ".my.cnf",
        ".htpasswd",
        ".dockercfg",
        ".npmrc",
        ".boto",
        ".s3cfg",
        ".databrickscfg",
        ".vault-token",
        "application_default_credentials.json",
        "id_rsa",
        "id_dsa",
        "id_ecdsa",
        "id_ed25519",
    ]
)
_ENV = re.compile(r"\.env\.(?!example$|sample$|template$|dist$)[\w.-]+")
PLACES = (
    ".aws",
    ".azure",
    ".cargo/credentials.toml",
    ".config/containers/auth.json",
    ".config/gcloud",
    ".config/gh",
    ".config/pypoetry/auth.toml",
    ".docker/config.json",
    ".gnupg",
    ".kaggle/kaggle.json",
    ".kube/config",
    ".password-store",
    ".rattler/credentials.json",
    ".ssh",
    ".streamlit/secrets.toml",
)
"""Places where programs keep credentials. No path that ends with one ships, nor anything below it."""
_PLACE = re.compile("/(?:" + "|".join(map(re.escape, PLACES)) + ")/")
_CONFIGURATION = frozenset(
    [
        "pip.conf",
        "pip.ini",
        ".condarc",
        "condarc",
        ".mambarc",
        "mambarc",
        "uv.toml",
        "poetry.toml",
        ".pdm.toml",
        "pdm.toml",
        ".pydistutils.cfg",
        "pydistutils.cfg",
        "distutils.cfg",
        ".flaskenv",
        "postactivate",
        "preactivate",
        "predeactivate",
        "postdeactivate",
        "secrets.toml",
        "secrets.yaml",
        "secrets.yml",
        "secrets.json",
        "secrets.ini",
        "credentials.json",
        "client_secret.json",
        "service_account.json",
    ]
)
# conda: an environment's variables, drop-in settings, and activation scripts, which often set variables.
_CONDA = re.compile(r"(?:.*/)?(?:conda-meta/state|\.?condarc\.d/[^/]+|etc/conda/(?:(?:de)?activate|env_vars)\.d/[^/]+)")
# Files that name package indexes or repositories: only URLs in them can hold credentials.
_REQUIREMENTS = re.compile(
    r"(?:.*/)?(?:(?:(?:requirements|constraints)/(?:.*/)?|[\w.-]*(?:requirements|constraints))[\w.-]*\.(?:txt|in|lock)"
    r"|(?:pyproject|pixi|hatch|uv-receipt|pylock(?:\.[\w-]+)?)\.toml|setup\.cfg|tox\.ini|Pipfile(?:\.lock)?"
    r"|(?:poetry|uv|pdm|pixi)\.lock|environment[\w.-]*\.ya?ml|(?:[\w.-]+\.)?conda-lock\.ya?ml|explicit\.txt"
    r"|pipx_metadata\.json|\.gitmodules)"
)

_USER = rb"://(?!git@)[^/\s'\"<>]+@"
_IN_SETTING = re.compile(_USER + rb"|/t/[^/\s'\"]+")
_IN_URL = re.compile(_USER + rb"|://[^\s'\"]*/t/[^/\s'\"]+")
_NAME = (
    rb"(?:[\w.-]{0,80}?(?:passw(?:or)?d|passphrase|secret|token(?!i[sz])|credential|(?:api|access|private)[_-]?key)"
    rb"[\w.-]{0,80}|(?:[\w.-]{0,80}[_.-])?(?:pass|dsn|pat|jwt|auth|creds?)|[\w.-]{0,80}[_.-](?:pwd|pw|key))"
)
_VALUE = rb"""(?:'\$|["']?(?!\$[\w({])[^\s"'])"""
"""Start of a value. `$NAME` and `$(command)` only refer to a secret."""
_NAMED = re.compile(rb"""(?i)(?<![\w.-])""" + _NAME + rb"""["']?[ \t]*[:=][ \t]*""" + _VALUE)
# csh and fish: no sign between name and value.
_SET = re.compile(rb"(?im)^[ \t]*(?:set|setenv)[ \t]+(?:-\w+[ \t]+)*" + _NAME + rb"[ \t]+" + _VALUE)
# Tokens with a prefix by which their issuers let scanners recognise them.
_SHAPED = re.compile(
    rb"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|(?:AKIA|ASIA)[0-9A-Z]{16}|xox[abeprs]-[\w-]{10,}"
    rb"|sk-[\w-]{20,}|hf_\w{20,}|pypi-[\w-]{20,}|npm_\w{30,}|AIza[\w-]{30,}|dckr_pat_[\w-]{20,}"
    rb"|eyJ[\w-]{10,}\.eyJ[\w-]{10,})"
)
_KEY_SUFFIXES = (".pem", ".key", ".p12", ".pfx", ".jks", ".keystore")
_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
_MOST = 1 << 20

VCS_FOLDER = "a version control system's folder"
FILE, PLACE, CONFIGURATION, KEY = (
    "a file for credentials",
    "a place for credentials",
    "a configuration with credentials",
    "a private key",
)
REASONS = frozenset({FILE, PLACE, CONFIGURATION, KEY})
"""Reasons that deserve a finding, since the user may have meant to ship the file."""


def secret(path: str, name: str, source: str) -> str | None:
    """Return the reason why the file or folder `path` (last part: `name`) must not ship, or None.

    Every parent folder counts. The bytes are at `source`, read only for the few names that may or may
    not hold a secret.
    """
    if reason := _place(path):
        return reason
    if name in _NAMES or (name.startswith(".env.") and _ENV.fullmatch(name)):
        return FILE
    if name in _CONFIGURATION or name.endswith(".env") or _CONDA.fullmatch(path):
        return CONFIGURATION if _has_credential(_head(source)) else None
    if _REQUIREMENTS.fullmatch(path):
        return CONFIGURATION if _IN_URL.search(_head(source)) else None
    if name.endswith(_KEY_SUFFIXES) or (name.startswith("id_") and not name.endswith(".pub")):
        binary = name.endswith((".p12", ".pfx", ".jks", ".keystore"))
        return KEY if binary or _PRIVATE_KEY.search(_head(source)) else None
    return None


def secret_behind(path: str, target: str) -> str | None:
    """Return the reason why the target of a link at `path` must not ship, or None.

    `target` is absolute. Parts that both end with are ignored: in uv's symlink mode a package's file
    is a link into the cache, and is judged as if it were a copy.
    """
    rest, own = target.split("/"), path.split("/")
    while rest and own and rest[-1] == own[-1]:
        rest.pop()
        own.pop()
    left = "/".join(rest)
    return secret(target, rest[-1], target) if left == target else _place(left)


def _place(path: str) -> str | None:
    if not VCS.isdisjoint(path.split("/")):
        return VCS_FOLDER
    return PLACE if "." in path and _PLACE.search(f"/{path}/") else None


def _has_credential(content: bytes) -> bool:
    return any(find.search(content) for find in (_IN_SETTING, _NAMED, _SET, _SHAPED, _PRIVATE_KEY))


def _head(source: str) -> bytes:
    try:
        return read_small(source, _MOST)
    except OSError:
        return b""
