"""Secrets never ship from any place; files that only sound like secrets ship."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lamella.builder.environment import LeftOut
from lamella.builder.files.secrets import (
    CONFIGURATION,
    FILE,
    KEY,
    PLACE,
    PLACES,
    REASONS,
    VCS,
    VCS_FOLDER,
    secret,
    secret_behind,
)
from lamella.builder.prefix.places import Place
from lamella.builder.prefix.walk import FoundFile, find_file, walk
from lamella.builder.scanning.findings import without_secrets
from lamella.builder.scanning.link_targets import LinkTargets
from lamella.builder.scanning.symlinks import resolve

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nCANARY\n"


def judged(folder: Path, path: str, text: str = "") -> str | None:
    """Reason why the file `path` with these contents must not ship."""
    source = folder / path
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(text)
    return secret(path, source.name, str(source))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("below", ["", "/work", "/deep/er/config"])
@pytest.mark.parametrize("above", ["", "home/", "lib/python3.11/site-packages/app/"])
def test_nothing_in_a_place_for_credentials_ships(tmp_path: Path, place: str, below: str, above: str) -> None:
    assert judged(tmp_path, f"{above}{place}{below}") == PLACE


@pytest.mark.parametrize("folder", sorted(VCS))
def test_nothing_of_a_version_control_system_ships(tmp_path: Path, folder: str) -> None:
    assert judged(tmp_path, f"app/{folder}/deep/config") == VCS_FOLDER
    assert judged(tmp_path / "itself", f"app/{folder}") == VCS_FOLDER


@pytest.mark.parametrize(
    "name",
    [".netrc", "_netrc", ".pypirc", ".git-credentials", ".env", ".env.production", ".envrc", ".npmrc", ".pgpass", "id_rsa",
     ".secrets.toml", ".vault-token", ".databrickscfg"],
)  # fmt: skip
def test_files_for_credentials_never_ship(tmp_path: Path, name: str) -> None:
    assert judged(tmp_path, f"app/{name}") == FILE


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pip.conf", "index-url = https://me:CANARY@host/simple"),
        ("pip.conf", "index-url = https://CANARY@host/simple"),
        ("pip.conf", "index-url = https://:CANARY@host/simple"),
        ("uv.toml", 'url = "https://CANARY@host/simple"'),
        ("poetry.toml", 'url = "https://CANARY@host/simple"'),
        (".condarc", "channels: [https://host/t/CANARY]"),
        (".condarc", "channels:\n  - conda.corp/t/CANARY\n"),
        ("condarc.d/corp.yml", "channel_alias: https://host/t/CANARY/"),
        ("etc/.condarc.d/corp.yaml", "channel_alias: https://me:CANARY@host"),
        ("conda-meta/state", '{"env_vars": {"DB_PASS": "CANARY"}}'),
        ("conda-meta/state", '{"env_vars": {"MYSQL_PWD": "CANARY"}}'),
        ("conda-meta/state", '{"env_vars": {"SENTRY_DSN": "CANARY"}}'),
        ("conda-meta/state", '{"env_vars": {"GITHUB_PAT": "CANARY"}}'),
        ("conda-meta/state", '{"env_vars": {"A": "1", "AWS_SECRET_ACCESS_KEY": "CANARY"}}'),
        ("conda-meta/state", '{"env_vars": {"AWS_ACCESS_KEY_ID": "CANARY"}}'),
        ("conda-meta/state", '{"env_vars": {"PGPASSWORD": "CANARY"}}'),
        ("conda-meta/state", '{"env_vars": {"ENCRYPTION_KEY": "CANARY"}}'),
        ("conda-meta/state", '{"env_vars": {"DATABASE_URL": "postgres://me:CANARY@host/db"}}'),
        ("conda-meta/state", '{"env_vars": {"INNOCENT": "ghp_0123456789abcdefghij0123456789abcdef"}}'),
        ("conda-meta/state", '{"env_vars": {"INNOCENT": "AKIAIOSFODNN7EXAMPLE"}}'),
        ("etc/conda/activate.d/env_vars.sh", "#!/bin/sh\nexport AWS_SECRET_ACCESS_KEY=CANARY\n"),
        ("etc/conda/activate.d/env_vars.sh", "export MODE=1; export DB_PASS='CANARY'\n"),
        ("etc/conda/activate.d/env_vars.sh", "API_TOKEN='$CANARY'\nexport API_TOKEN\n"),
        ("etc/conda/activate.d/env_vars.fish", "set -gx API_TOKEN CANARY\n"),
        ("etc/conda/activate.d/env_vars.csh", "setenv API_TOKEN CANARY\n"),
        ("etc/conda/activate.d/env_vars.bat", '@set "API_TOKEN=CANARY"\n'),
        ("etc/conda/activate.d/env_vars.ps1", '$Env:API_TOKEN = "CANARY"\n'),
        ("etc/conda/deactivate.d/env_vars.sh", "export API_TOKEN=CANARY\n"),
        ("etc/conda/env_vars.d/own.json", '{"API_TOKEN": "CANARY"}'),
        ("bin/postactivate", "export API_TOKEN=CANARY\n"),
        ("config/prod.env", "DB_PASS=CANARY\n"),
        ("app/secrets.toml", "[db]\npassword = 'CANARY'\n"),
        ("app/service_account.json", '{"private_key": "CANARY"}'),
        ("requirements-dev.txt", "--extra-index-url https://me:CANARY@host/simple\n"),
        ("dev-requirements.txt", "--extra-index-url https://me:CANARY@host/simple\n"),
        ("requirements.lock", "--index-url https://me:CANARY@host/simple\n"),
        ("app/requirements/dev.txt", "--extra-index-url https://me:CANARY@host/simple\n"),
        ("pylock.toml", 'index = "https://me:CANARY@host/simple"\n'),
        ("pylock.gpu.toml", 'index = "https://me:CANARY@host/simple"\n'),
        ("hatch.toml", 'PIP_INDEX_URL = "https://me:CANARY@host/simple"\n'),
        ("environment-gpu.yaml", "channels: [https://host/t/CANARY/c]\n"),
        ("tools/x/uv-receipt.toml", 'index = [{ url = "https://me:CANARY@host/simple" }]\n'),
        ("tools/x/pipx_metadata.json", '{"pip_args": ["--index-url", "https://me:CANARY@host/simple"]}'),
        (".gitmodules", "url = https://me:CANARY@host/x.git\n"),
        ("pyproject.toml", 'dependencies = ["foo @ git+https://CANARY@host/foo"]\n'),
        ("environment.yml", "channels: [https://host/t/CANARY/c]\n"),
    ],
)
def test_configurations_with_credentials_never_ship(tmp_path: Path, name: str, text: str) -> None:
    assert judged(tmp_path, name, text) == CONFIGURATION


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pip.conf", "[global]\nindex-url = https://host/simple\n"),
        ("pip.conf", "[global]\nfind-links = git+ssh://git@host/x\n"),
        (".condarc", "channels: [conda-forge]\n"),
        ("conda-meta/state", '{"version": 1, "env_vars": {"MODE": "fast", "TOKENIZERS_PARALLELISM": "false"}}'),
        ("etc/conda/activate.d/gdal.sh", 'export GDAL_DATA="$CONDA_PREFIX/share/gdal"\n'),
        ("etc/conda/activate.d/ask.sh", 'export API_TOKEN="$(pass show api)"\nexport DB_PASS=$OTHER\nunset SECRET\n'),
        ("config/prod.env", "MODE=fast\n"),
        ("pyproject.toml", '[project]\nname = "app"\nurls = {home = "https://host"}\n[tool.x]\ntoken = "abc"\n'),
        ("requirements.txt", "numpy>=1\nfoo @ git+ssh://git@host/foo\n"),
        ("app/requirements/dev.txt", "-r base.txt\n"),
        ("pylock.toml", 'index = "https://host/simple"\n'),
        (".gitmodules", "url = git@host:x.git\n"),
        (".env.example", "TOKEN=put yours here"),
        ("tokens.py", "TOKEN = 'x'"),
        ("ssl/cacert.pem", "-----BEGIN CERTIFICATE-----"),
        ("id_map.csv", "1,2"),
        ("id_work.pub", "ssh-ed25519 AAAA"),
        ("app/ssh/config", ""),
        ("app/gcloud/__init__.py", ""),
    ],
)  # fmt: skip
def test_files_without_credentials_ship(tmp_path: Path, name: str, text: str) -> None:
    assert judged(tmp_path, name, text) is None


@pytest.mark.parametrize("name", ["tls.key", "server.pem", "id_work", "deploy/id_gitlab"])
def test_private_keys_never_ship(tmp_path: Path, name: str) -> None:
    assert judged(tmp_path, name, PRIVATE) == KEY


def test_leftovers_of_installers_do_not_ship() -> None:
    """A record without its package and a half removed distribution contain URLs as given."""
    site = "lib/python3.11/site-packages"
    seen = os.stat(os.curdir)
    names = ("conda-meta/x-1-0.json", f"{site}/~oo-1.0.dist-info/direct_url.json", f"{site}/~/x.py")
    stays = (f"{site}/foo/~x", "share/conda-meta.json")
    kept, left_out = without_secrets([FoundFile(name, "/nowhere/" + name, seen) for name in (*names, *stays)])
    assert tuple(entry.path for entry in kept) == stays
    assert {item.path for item in left_out} == set(names)
    assert not REASONS & {item.reason for item in left_out}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "work").write_text("CANARY")
    (home / ".netrc").write_text("CANARY")
    (home / "dotfiles").mkdir()
    (home / "dotfiles" / "pypirc").write_text("CANARY")
    (home / ".pypirc").symlink_to("dotfiles/pypirc")
    (home / "plain.txt").write_text("")
    return home


def linked(folder: Path, target: Path | str) -> tuple[list[str], list[LeftOut]]:
    """Files shipped and left out of an environment with one link to `target`, at app/link.txt."""
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "link.txt").symlink_to(target)
    targets = LinkTargets((Place(str(folder.parent), ""),), (), ())
    resolved = resolve({entry.path: entry for entry in walk(str(folder)).entries}, (), (), targets)
    return [entry.path for entry in resolved.entries], resolved.left_out


@pytest.mark.parametrize(
    ("target", "reason"),
    [(".netrc", FILE), (".ssh/work", PLACE), (".ssh", PLACE), (".pypirc", FILE), ("dotfiles/again", FILE)],
)
def test_a_link_with_an_innocent_name_does_not_bring_a_secret(
    home: Path, tmp_path: Path, target: str, reason: str
) -> None:
    (home / "dotfiles" / "again").symlink_to("../.pypirc")
    assert linked(tmp_path / "env", home / target) == ([], [LeftOut("app/link.txt", reason)])


def test_a_link_to_a_folder_ships_its_files_except_secrets(home: Path, tmp_path: Path) -> None:
    kept, left_out = linked(tmp_path / "env", home)
    assert sorted(kept) == ["app/link.txt/dotfiles/pypirc", "app/link.txt/plain.txt"]
    assert {item.path: item.reason for item in left_out} == {
        "app/link.txt/.netrc": FILE,
        "app/link.txt/.pypirc": FILE,
        "app/link.txt/.ssh": PLACE,
    }


def test_a_package_whose_files_are_links_into_a_cache_is_judged_as_if_they_were_there(tmp_path: Path) -> None:
    """uv's symlink mode: a public wheel's test key ships, as it does from a copy."""
    inside = "lib/python3.11/site-packages/pkg/tests/id_rsa"
    assert secret_behind(inside, "/home/me/.cache/uv/archive-v0/abc/pkg/tests/id_rsa") is None
    assert secret_behind(inside, "/home/me/.ssh/id_rsa") == PLACE
    assert find_file("x", str(tmp_path / "gone")) is None


@pytest.mark.parametrize("name", ["pip.conf", "requirements.txt", "server.key"])
def test_a_fifo_with_the_name_of_a_configuration_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / "folder.env").mkdir()
    assert secret(name, name, str(tmp_path / name)) is None
    assert secret("folder.env", "folder.env", str(tmp_path / "folder.env")) is None
