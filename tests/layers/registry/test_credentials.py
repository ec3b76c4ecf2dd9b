"""Credentials in the files and helpers of Docker's and podman's clients; logging in and out."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import CredentialsError, Denied, InvalidReference, NotFound, Unreachable
from lamella.layers.registry import credential_helper
from lamella.layers.registry.credentials import Credentials, find
from lamella.layers.registry.login import login, logout
from lamella.layers.registry.repository import Registry
from support.distribution import PASSWORD, USER, distribution
from support.engines import need
from support.homes import auth_of, fresh_home, know, write
from support.people import NOBODY, as_user, folder_of
from support.published import push_image
from support.registry_simulator import Fault, RegistrySimulator

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = Credentials("user", "password")
ENTRY = auth_of("user", "password")

HELPER = """#!/bin/sh
# The protocol of docker-credential-helpers, with one file for each server.
case "$1" in
get) read -r server; f="{folder}/$(echo "$server" | tr '/:' '__')"
     [ -f "$f" ] && cat "$f" || {{ echo "credentials not found in native keychain"; exit 1; }} ;;
store) input=$(cat); server=$(echo "$input" | sed 's/.*"ServerURL": *"\\([^"]*\\)".*/\\1/')
       echo "$input" > "{folder}/$(echo "$server" | tr '/:' '__')" ;;
erase) read -r server; rm "{folder}/$(echo "$server" | tr '/:' '__')" 2>/dev/null ||
       {{ echo "credentials not found in native keychain"; exit 1; }} ;;
esac
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return fresh_home(folder, monkeypatch)


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """docker-credential-files, and the folder where it keeps what it is given."""
    folder, kept = tmp_path / "bin", tmp_path / "kept"
    folder.mkdir()
    kept.mkdir()
    program = folder / "docker-credential-files"
    program.write_text(HELPER.format(folder=kept))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return kept


def test_without_a_file_there_are_no_credentials() -> None:
    assert find("ghcr.io") is None


def test_docker_s_file_is_read(home: Path) -> None:
    know(home, "ghcr.io", ENTRY)
    assert find("ghcr.io", "team/envs") == KNOWN
    assert find("quay.io") is None


@pytest.mark.parametrize(
    ("registry", "key"),
    [
        ("docker.io", "https://index.docker.io/v1/"),
        ("docker.io", "docker.io"),
        ("docker.io", "index.docker.io"),
        ("ghcr.io", "https://ghcr.io"),
        ("ghcr.io", "https://ghcr.io/v2/"),
        ("localhost:5000", "http://localhost:5000"),
    ],
)
def test_a_registry_is_found_under_its_other_names(home: Path, registry: str, key: str) -> None:
    know(home, key, ENTRY)
    assert find(registry) == KNOWN


def test_docker_config_names_another_folder(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(home, "ghcr.io", auth_of("other", "other"))
    write(tmp_path / "elsewhere" / "config.json", {"auths": {"ghcr.io": ENTRY}})
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "elsewhere"))
    assert find("ghcr.io") == KNOWN


def test_registry_auth_file_goes_first_and_the_others_follow(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(home, "ghcr.io", auth_of("other", "other"))
    write(home / ".docker" / "config.json", {"auths": {"quay.io": ENTRY, "ghcr.io": auth_of("other", "other")}})
    write(tmp_path / "auth.json", {"auths": {"ghcr.io": ENTRY}})
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    assert find("ghcr.io") == KNOWN
    assert find("quay.io") == KNOWN


def test_podman_s_files_are_read(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / ".config" / "containers" / "auth.json", {"auths": {"ghcr.io": ENTRY}})
    assert find("ghcr.io") == KNOWN
    write(tmp_path / "run" / "containers" / "auth.json", {"auths": {"ghcr.io": auth_of("runtime", "x")}})
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    assert find("ghcr.io") == Credentials("runtime", "x")


def test_the_entry_closest_to_the_repository_counts(home: Path) -> None:
    entries = {"ghcr.io": ENTRY, "ghcr.io/team": auth_of("team", "x"), "ghcr.io/team/envs": auth_of("envs", "x")}
    write(home / ".config" / "containers" / "auth.json", {"auths": entries})
    found = [find("ghcr.io", name) for name in ("team/envs", "team/other", "other/envs")]
    assert [entry.username for entry in found if entry] == ["envs", "team", "user"]


def test_an_entry_for_a_part_of_a_registry_is_not_for_the_rest(home: Path) -> None:
    write(home / ".config" / "containers" / "auth.json", {"auths": {"ghcr.io/team": ENTRY}})
    assert find("ghcr.io", "other/envs") is None


def test_an_identity_token_is_found(home: Path) -> None:
    know(home, "ghcr.io", {**ENTRY, "identitytoken": "secret"})
    assert find("ghcr.io") == Credentials(identity_token="secret")


def test_a_pull_secret_of_kubernetes_is_read(home: Path) -> None:
    know(home, "ghcr.io", {"username": "user", "password": "password"})
    assert find("ghcr.io") == KNOWN


def test_a_helper_is_asked(home: Path, helper: Path) -> None:
    write(home / ".docker" / "config.json", {"credHelpers": {"ghcr.io": "files"}, "auths": {"quay.io": ENTRY}})
    assert find("ghcr.io") is None
    (helper / "ghcr.io").write_text('{"ServerURL": "ghcr.io", "Username": "user", "Secret": "password"}')
    assert find("ghcr.io") == KNOWN
    assert find("quay.io") == KNOWN


def test_an_identity_token_of_a_helper_is_marked_by_its_user_name(home: Path, helper: Path) -> None:
    write(home / ".docker" / "config.json", {"credsStore": "files"})
    (helper / "ghcr.io").write_text('{"ServerURL": "ghcr.io", "Username": "<token>", "Secret": "secret"}')
    assert find("ghcr.io") == Credentials(identity_token="secret")


def test_a_helper_stores_docker_hub_under_its_url(home: Path, helper: Path) -> None:
    write(home / ".docker" / "config.json", {"credsStore": "files"})
    name = "https___index.docker.io_v1_"
    (helper / name).write_text('{"ServerURL": "x", "Username": "user", "Secret": "password"}')
    assert find("docker.io") == KNOWN


def test_a_missing_helper_is_reported(home: Path) -> None:
    write(home / ".docker" / "config.json", {"credsStore": "desktop"})
    with pytest.raises(CredentialsError, match="docker-credential-desktop not found on PATH; install it, or remove it"):
        find("ghcr.io")


def test_a_failing_helper_is_reported_without_its_output(home: Path, helper: Path) -> None:
    write(home / ".docker" / "config.json", {"credsStore": "files"})
    (helper.parent / "bin" / "docker-credential-files").write_text("#!/bin/sh\necho hunter2; exit 1\n")
    with pytest.raises(
        CredentialsError, match=r"docker-credential-files: the credential helper failed for ghcr\.io"
    ) as caught:
        find("ghcr.io")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"auths": {"ghcr.io": {"auth": "not base64!"}}}', '{"auths": {"ghcr.io": {"auth": "bm9jb2xvbg=="}}}'],
)
def test_an_invalid_file_is_reported(home: Path, content: str) -> None:
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text(content)
    with pytest.raises(CredentialsError, match=r"config\.json: (not valid JSON|the entry for ghcr\.io is invalid)"):
        find("ghcr.io")


@pytest.mark.root
def test_an_unreadable_file_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with folder_of(0) as folder:
        fresh_home(folder, monkeypatch)
        know(folder, "ghcr.io", ENTRY)
        (folder / ".docker" / "config.json").chmod(0o600)
        with pytest.raises(CredentialsError, match=r"cannot read the credentials in .*config\.json: Permission denied"):
            as_user(NOBODY, lambda: find("ghcr.io"))


@pytest.mark.parametrize(
    "content", ["", "\n", "{}", '{"auths": {"ghcr.io": {}}}', '{"auths": {"ghcr.io": {"auth": ""}}}']
)
def test_an_empty_file_or_entry_holds_no_credentials(home: Path, content: str) -> None:
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text(content)
    assert find("ghcr.io") is None


def test_credentials_of_a_later_file_count_if_an_earlier_file_is_broken(home: Path) -> None:
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text("{")
    write(home / ".config" / "containers" / "auth.json", {"auths": {"ghcr.io": ENTRY}})
    assert find("ghcr.io") == KNOWN


BROKEN = {
    "banner": "#!/bin/sh\necho Welcome; echo '{}'\n",
    "null": "#!/bin/sh\necho null\n",
    "failing": "#!/bin/sh\necho hunter2; exit 1\n",
    "hanging": "#!/bin/sh\nsleep 1000\n",
    "binary": "\x7fELF",
    "missing": "",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_helper_stops_no_anonymous_pull_and_explains_a_refusal(
    home: Path, helper: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    program = helper.parent / "bin" / "docker-credential-files"
    program.write_text(BROKEN[kind]) if BROKEN[kind] else program.unlink()
    monkeypatch.setattr(credential_helper, "TIMEOUT", 0.2)
    write(home / ".docker" / "config.json", {"credsStore": "files"})
    with RegistrySimulator().serving() as simulator:
        registry = Registry(simulator.host, "team/envs")
        manifest = push_image(registry, [b"content"], "v1")
        registry.close()
        simulator.auth = "bearer"
        registry = Registry(simulator.host, "team/envs")
        assert registry.resolve("v1") == manifest.descriptor
        registry.close()
        simulator.faults = [Fault("GET /token", 1, 401)]
        registry = Registry(simulator.host, "team/envs")
        with pytest.raises(Denied, match=r"\(no credentials were sent: .*docker-credential-files") as caught:
            registry.resolve("v1")
        assert "hunter2" not in str(caught.value)
        registry.close()


@pytest.mark.slow
def test_a_helper_that_hangs_is_ended_with_its_children(
    home: Path, helper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = helper.parent / "bin" / "docker-credential-files"
    program.write_text(f"#!/bin/sh\nexec 3> {helper}/alive; sleep 1000; true\n")
    os.mkfifo(helper / "alive")
    monkeypatch.setattr(credential_helper, "TIMEOUT", 0.5)
    write(home / ".docker" / "config.json", {"credsStore": "files"})
    reader = os.open(helper / "alive", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(
        CredentialsError, match=r"no answer within .* seconds; try it with: echo ghcr\.io \| docker-cred"
    ):
        find("ghcr.io")
    os.set_blocking(reader, True)
    # It ends when the last process that has the other end is gone.
    with open(reader, "rb") as stream:
        assert stream.read() == b""


def test_no_secret_is_in_a_representation() -> None:
    shown = repr(Credentials("user", "hunter2", "token"))
    assert "hunter2" not in shown
    assert "token=" not in shown


# Logging in and out


@pytest.mark.engine
def test_a_login_is_verified_and_stored_as_docker_stores_it(home: Path) -> None:
    path = home / ".docker" / "config.json"
    write(path, {"auths": {"quay.io": ENTRY}, "psFormat": "table"})
    with distribution(auth=True) as host:
        assert login(host, USER, PASSWORD) == str(path)
        document = json.loads(path.read_text())
        assert document == {"auths": {"quay.io": ENTRY, host: ENTRY}, "psFormat": "table"}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        registry = Registry(host, "team/envs")
        push_image(registry, [b"content"], "v1")
        registry.close()
        listed = subprocess.check_output(
            [need("skopeo"), "list-tags", "--tls-verify=false", "--authfile", str(path), f"docker://{host}/team/envs"]
        )
        assert json.loads(listed)["Tags"] == ["v1"]
        assert logout(host)
        assert not logout(host)
    assert json.loads(path.read_text())["auths"] == {"quay.io": ENTRY}


@pytest.mark.parametrize("spelling", ["https://{}", "http://{}/", "{}/v2/", "{}/v1/"])
def test_a_login_replaces_credentials_under_another_spelling(home: Path, spelling: str) -> None:
    with RegistrySimulator().serving() as simulator:
        simulator.auth = "basic"
        know(home, spelling.format(simulator.host), auth_of("old", "stale"))
        login(simulator.host, USER, PASSWORD)
        found = find(simulator.host)
        assert found
        assert found.username == USER
        assert logout(simulator.host)
        assert find(simulator.host) is None


@pytest.mark.parametrize("spelling", ["docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"])
def test_a_logout_removes_every_spelling(home: Path, spelling: str) -> None:
    know(home, spelling, auth_of(USER, PASSWORD))
    assert logout("docker.io")
    assert find("docker.io") is None


def test_a_login_keeps_credentials_for_a_part_of_the_registry(home: Path) -> None:
    with RegistrySimulator().serving() as simulator:
        know(home, f"{simulator.host}/team", auth_of("team", "secret"))
        login(f"https://{simulator.host}", USER, PASSWORD)
        for repository, user in (("team/envs", "team"), ("other/envs", USER)):
            found = find(simulator.host, repository)
            assert found
            assert found.username == user


@pytest.mark.parametrize("name", ["localhost:5000/team", "", "ftp://ghcr.io", "ghcr.io:port", "user:hunter2@gh cr.io"])
def test_a_login_to_an_invalid_registry_is_reported(name: str) -> None:
    with pytest.raises(InvalidReference, match="not a registry; use its host alone, such as ghcr") as caught:
        login(name, USER, PASSWORD)
    assert "hunter2" not in str(caught.value)


def test_a_login_to_a_server_without_the_api_is_reported() -> None:
    with RegistrySimulator().serving() as simulator:
        simulator.faults = [Fault("GET /v2/", 1, 404)]
        with pytest.raises(NotFound, match=f"{simulator.host}: not a registry, it has no /v2/; check its name"):
            login(simulator.host, USER, PASSWORD)


@pytest.mark.engine
def test_a_refused_login_is_not_stored(home: Path) -> None:
    with (
        distribution(auth=True) as host,
        pytest.raises(Denied, match="refuses the credentials for this login") as caught,
    ):
        login(host, USER, "hunter2")
    assert "hunter2" not in str(caught.value)
    assert not (home / ".docker").exists()


@pytest.mark.slow
def test_a_login_to_a_registry_that_is_down_is_not_stored(home: Path) -> None:
    with RegistrySimulator().serving() as simulator:
        host = simulator.host
    with pytest.raises(Unreachable):
        login(host, USER, PASSWORD)
    assert not (home / ".docker").exists()


def test_a_login_with_tokens_is_verified() -> None:
    simulator = RegistrySimulator()
    simulator.auth = "bearer"
    with simulator.serving():
        login(simulator.host, USER, PASSWORD)
        with pytest.raises(Denied, match="refuses the credentials for a token"):
            login(simulator.host, USER, "wrong")
    assert find(simulator.host) == KNOWN


@pytest.mark.engine
def test_a_login_is_stored_with_the_configured_helper(home: Path, helper: Path) -> None:
    path = home / ".docker" / "config.json"
    write(path, {"credsStore": "files"})
    with distribution(auth=True) as host:
        assert login(host, USER, PASSWORD) == "docker-credential-files"
        assert find(host) == KNOWN
        assert json.loads(path.read_text()) == {"credsStore": "files", "auths": {host: {}}}
        assert logout(host)
        assert not logout(host)
        assert find(host) is None
    assert not [file for file in helper.iterdir() if "localhost" in file.name]


@pytest.mark.engine
def test_a_login_is_stored_in_registry_auth_file(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    with distribution(auth=True) as host:
        login(host, USER, PASSWORD)
        assert find(host) == KNOWN
    assert not (home / ".docker").exists()


@pytest.mark.engine
def test_a_link_to_the_file_stays_a_link(tmp_path: Path, home: Path) -> None:
    write(tmp_path / "dotfiles" / "config.json", {})
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").symlink_to(tmp_path / "dotfiles" / "config.json")
    with distribution(auth=True) as host:
        login(host, USER, PASSWORD)
    assert (home / ".docker" / "config.json").is_symlink()
    assert find(host) == KNOWN
