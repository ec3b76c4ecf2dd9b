"""Facts about a registry that one process learns and the next uses."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import Denied, LayersError
from lamella.layers.oci import referrers
from lamella.layers.oci.referrers import Artifact
from lamella.layers.registry.remembered import Remembered
from lamella.layers.registry.repository import Registry
from lamella.layers.registry.retry import Patience
from support.homes import auth_of, fresh_home, know
from support.published import push_image
from support.registry_simulator import PASSWORD, USER, Fault, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOON = Patience(tries=3, first=0.001)
REPORT = Artifact("application/vnd.example.report+json", b"{}")


class Kept(dict[str, bytes]):
    """Notes in memory."""

    def note(self, name: str) -> bytes | None:
        return self.get(name)

    def keep_note(self, name: str, content: bytes) -> None:
        self[name] = content


class FullDisk(Kept):
    """Notes that can't be written."""

    def keep_note(self, name: str, content: bytes) -> None:
        raise LayersError(f"{name}: no space left for {len(content)} bytes")


@pytest.fixture
def simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as running:
        know(fresh_home(tmp_path, monkeypatch), running.host, auth_of(USER, PASSWORD))
        yield running


def opened(simulator: RegistrySimulator, notes: Kept) -> Registry:
    """A repository as a new process opens it to push."""
    simulator.requests.clear()
    return Registry(simulator.host, "team/envs", patience=SOON, mirrors=False, notes=notes)


def shown(simulator: RegistrySimulator) -> list[str]:
    return [f"{request.method} {request.path.partition('?')[0]}" for request in simulator.requests]


@pytest.mark.parametrize(
    ("auth", "second"),
    [("basic", ["GET /v2/team/envs/manifests/v1"]), ("bearer", ["GET /token", "GET /v2/team/envs/manifests/v1"])],
)
def test_a_known_challenge_is_answered_before_the_registry_repeats_it(
    simulator: RegistrySimulator, auth: str, second: list[str]
) -> None:
    notes = Kept()
    simulator.auth = auth
    push_image(opened(simulator, notes), [b"content"], "v1")
    opened(simulator, notes).resolve("v1")
    assert shown(simulator) == second


def test_no_token_and_no_password_is_kept(simulator: RegistrySimulator) -> None:
    notes = Kept()
    simulator.auth = "bearer"
    push_image(opened(simulator, notes), [b"content"], "v1")
    (content,) = notes.values()
    assert json.loads(content) == {"scheme": "bearer", "realm": f"http://{simulator.host}/token", "service": "tests"}


@pytest.mark.parametrize("realm", ["https://user:secret@host/token", "https://host/token?key=secret", "secret"])
def test_a_realm_that_can_hold_a_secret_is_not_kept(realm: str) -> None:
    notes = Kept()
    Remembered(notes, lambda: "https://host/v2").keep_challenge("bearer", {"realm": realm, "service": "s"})
    assert notes == {}


@pytest.mark.parametrize("status", [404, 401, 503])
def test_a_token_server_that_has_moved_is_found_again(simulator: RegistrySimulator, status: int) -> None:
    notes = Kept()
    simulator.auth = "bearer"
    push_image(opened(simulator, notes), [b"content"], "v1")
    simulator.realm = f"http://{simulator.host}/token?moved=1"
    simulator.faults.append(Fault("GET /token[?](?!moved)", 99, status))
    opened(simulator, notes).resolve("v1")


def test_a_registry_that_changes_its_authentication_is_obeyed(simulator: RegistrySimulator) -> None:
    notes = Kept()
    simulator.auth = "bearer"
    push_image(opened(simulator, notes), [b"content"], "v1")
    simulator.auth = "basic"
    opened(simulator, notes).resolve("v1")
    opened(simulator, notes).resolve("v1")
    assert shown(simulator) == ["GET /v2/team/envs/manifests/v1"]
    simulator.auth = ""
    opened(simulator, notes).resolve("v1")


def test_a_known_challenge_with_wrong_credentials_is_refused_as_before(
    simulator: RegistrySimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Kept()
    for auth in ("basic", "bearer"):
        simulator.auth = auth
        know(fresh_home(tmp_path / auth, monkeypatch), simulator.host, auth_of(USER, PASSWORD))
        push_image(opened(simulator, notes), [b"content"], "v1")
        know(fresh_home(tmp_path / f"{auth} wrong", monkeypatch), simulator.host, auth_of(USER, "wrong"))
        with pytest.raises(Denied, match="log in with lamella login"):
            opened(simulator, notes).resolve("v1")


def test_a_kept_realm_is_checked_like_one_that_a_registry_names(simulator: RegistrySimulator) -> None:
    """Who could write this file would still not get a password for a host that the policy refuses."""
    notes = Kept()
    simulator.auth = "basic"
    push_image(opened(simulator, notes), [b"content"], "v1")
    (name,) = notes
    for realm in ("ftp://elsewhere/token", "http://169.254.169.254/token", "\ud800"):
        notes[name] = json.dumps({"scheme": "bearer", "realm": realm, "service": ""}).encode()
        opened(simulator, notes).resolve("v1")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"scheme": 1}', b"\xff", b'{"scheme": "negotiate"}', b"x"])
def test_a_note_that_cannot_be_read_is_ignored(simulator: RegistrySimulator, content: bytes) -> None:
    notes = Kept()
    simulator.auth = "bearer"
    push_image(opened(simulator, notes), [b"content"], "v1")
    for name in (*notes, f"no referrers http://{simulator.host}/v2"):
        notes[name] = content
    storage = opened(simulator, notes)
    assert referrers.referrers(storage, storage.resolve("v1")) == ()


def test_facts_that_cannot_be_kept_stop_nothing(simulator: RegistrySimulator) -> None:
    simulator.auth, simulator.referrers_api = "bearer", False
    storage = opened(simulator, FullDisk())
    referrers.attach(storage, push_image(storage, [b"content"], "v1").descriptor, REPORT)


def test_a_missing_referrers_api_is_asked_for_once_a_day(
    simulator: RegistrySimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Kept()
    simulator.referrers_api = False
    storage = opened(simulator, notes)
    image = push_image(storage, [b"content"], "v1").descriptor
    attached = referrers.attach(storage, image, REPORT)
    for later, asked in ((0, 0), (25 * 3600, 1)):
        now = time.time() + later
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert [each.digest for each in referrers.referrers(opened(simulator, notes), image)] == [attached.digest]
        assert len(simulator.asked("/referrers/")) == asked


def test_a_registry_that_gained_the_api_is_believed_at_the_next_attachment(simulator: RegistrySimulator) -> None:
    notes = Kept()
    simulator.referrers_api = False
    storage = opened(simulator, notes)
    image = push_image(storage, [b"content"], "v1").descriptor
    referrers.attach(storage, image, REPORT)
    simulator.referrers_api = True
    referrers.attach(opened(simulator, notes), image, Artifact("application/vnd.example.other", b"[]"))
    assert len(referrers.referrers(opened(simulator, notes), image)) == 2
    assert len(simulator.asked("/referrers/")) == 1
