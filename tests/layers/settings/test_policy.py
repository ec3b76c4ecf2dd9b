"""What an administrator requires holds for every function, whatever its caller passes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import pytest

import lamella.builder
import lamella.layers
from lamella.builder import LayerCache, PushOptions
from lamella.cli import settings
from lamella.layers import NotSigned, Policy, PolicyError, Store, Trust, machine_policy
from lamella.layers.settings import policy
from support.keys import key_pair
from support.packages import environment
from support.policies import administer
from support.published import publish

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ELSEWHERE = "registry.invalid/team/envs:v1"


class Use(NamedTuple):
    """What a caller passes."""

    reference: str
    folder: Path
    trust: Trust

    def store(self) -> Store:
        return Store(str(self.folder / "store"))


def push_on(base: Use) -> object:
    target, cache = f"oci:{base.folder}/pushed:v1", LayerCache(str(base.folder / "cache"))
    options = PushOptions(base=base.reference)
    return lamella.builder.push(target, environment(base.folder), options, trust=base.trust, cache=cache)


USES: dict[str, Callable[[Use], object]] = {
    "pull": lambda use: lamella.layers.pull(use.reference, store=use.store(), trust=use.trust),
    "run": lambda use: lamella.layers.run(use.reference, ["true"], store=use.store(), trust=use.trust),
    "mount": lambda use: lamella.layers.mount(
        use.reference, f"{use.folder}/target", store=use.store(), trust=use.trust
    ),
    "export": lambda use: lamella.layers.export(
        use.reference, f"{use.folder}/export", store=use.store(), trust=use.trust
    ),
    "inspect": lambda use: lamella.layers.inspect(use.reference, trust=use.trust),
    "sbom": lambda use: lamella.layers.sbom(use.reference, trust=use.trust),
    "published_environment": lambda use: lamella.layers.published_environment(use.reference, trust=use.trust),
    "layer_files": lambda use: lamella.layers.layer_files(use.reference, store=use.store(), trust=use.trust),
    "copy": lambda use: lamella.layers.copy(use.reference, f"oci:{use.folder}/other:v1", trust=use.trust),
    "diff": lambda use: lamella.builder.diff(use.reference, use.reference, trust=use.trust),
    "load_image": lambda use: lamella.builder.load_image(use.reference, trust=use.trust),
    "push --base": push_on,
}
"""Every function that reads a reference to use it."""


@pytest.fixture
def reference(tmp_path: Path) -> str:
    return publish(tmp_path / "layout", [{"bin/tool*": "#!/bin/sh\n"}])


@pytest.mark.parametrize("use", USES)
def test_an_unsigned_environment_is_refused(
    use: str, tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, required = key_pair(tmp_path, "required")
    administer(monkeypatch, tmp_path, require_signature=required)
    with pytest.raises(NotSigned, match=r"layout:latest@.*: not signed; sign it with lamella push --sign KEY"):
        USES[use](Use(reference, tmp_path, Trust()))


@pytest.mark.parametrize("use", USES)
def test_a_caller_s_own_key_does_not_replace_the_required_one(
    use: str, tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, required = key_pair(tmp_path, "required")
    own, own_public = key_pair(tmp_path, "own")
    administer(monkeypatch, tmp_path, require_signature=required)
    lamella.layers.sign(reference, own)
    with pytest.raises(NotSigned, match=r"not signed by the key in .*required\.pub, but by another"):
        USES[use](Use(reference, tmp_path, Trust(required_key=own_public)))


def test_a_caller_can_require_one_more_key(tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    private, required = key_pair(tmp_path, "required")
    own, own_public = key_pair(tmp_path, "own")
    administer(monkeypatch, tmp_path, require_signature=required)
    lamella.layers.sign(reference, private)
    with pytest.raises(NotSigned, match=r"not signed by the key in .*own\.pub, but by another"):
        lamella.layers.inspect(reference, trust=Trust(required_key=own_public))
    lamella.layers.sign(reference, own)
    assert lamella.layers.inspect(reference, trust=Trust(required_key=own_public)).environments


def test_one_of_several_required_keys_is_enough(
    tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, old = key_pair(tmp_path, "old")
    private, new = key_pair(tmp_path, "new")
    other, _ = key_pair(tmp_path, "other")
    administer(monkeypatch, tmp_path, require_signature=[old, new])
    lamella.layers.sign(reference, other)
    with pytest.raises(NotSigned, match=r"not signed by a key in .*old\.pub, .*new\.pub, but by another"):
        lamella.layers.inspect(reference)
    lamella.layers.sign(reference, private)
    assert lamella.layers.inspect(reference).environments


@pytest.mark.parametrize("use", USES)
def test_a_registry_that_is_not_allowed_is_not_asked(use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `push` opens its own folder first.
    administer(monkeypatch, tmp_path, allowed_registries=["ghcr.io/team", f"oci:{tmp_path}"])
    with pytest.raises(
        PolicyError, match=r"^registry\.invalid/team/envs: not in allowed-registries of .*machine\.toml"
    ):
        USES[use](Use(ELSEWHERE, tmp_path, Trust()))


def test_a_push_a_copy_a_signature_a_list_of_tags_and_a_login_are_refused_as_well(
    tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, _ = key_pair(tmp_path)
    administer(monkeypatch, tmp_path, allowed_registries=["ghcr.io/team", f"oci:{tmp_path}"])
    writes: tuple[Callable[[], object], ...] = (
        lambda: lamella.builder.push(ELSEWHERE, environment(tmp_path), cache=LayerCache(str(tmp_path / "cache"))),
        lambda: lamella.layers.copy(reference, ELSEWHERE),
        lambda: lamella.layers.sign(ELSEWHERE, private),
        lambda: lamella.layers.tags("registry.invalid/team/envs"),
        lambda: lamella.layers.login("registry.invalid", "ada", "secret"),
    )
    for write in writes:
        with pytest.raises(PolicyError, match=r"^registry\.invalid.*: not in allowed-registries"):
            write()


def test_a_folder_is_allowed_by_name_if_registries_are_listed(
    tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed/link").symlink_to(tmp_path / "layout")
    for registries in (["ghcr.io"], ["ghcr.io", f"oci:{tmp_path}/allowed"], [f"oci:{tmp_path}/lay"]):
        administer(monkeypatch, tmp_path, allowed_registries=registries)
        for named in (f"{tmp_path}/layout", f"{tmp_path}/allowed/link", f"{tmp_path}/allowed/../layout"):
            with pytest.raises(PolicyError, match=r"^oci:.*: not in allowed-registries of .*machine\.toml; use one of"):
                lamella.layers.inspect(f"oci:{named}")
    for registries in (["oci:"], [f"oci:{tmp_path}/layout/"], [f"oci:{tmp_path}"]):
        administer(monkeypatch, tmp_path, allowed_registries=registries)
        assert lamella.layers.inspect(reference).environments


@pytest.mark.parametrize(
    ("allowed", "registry", "repository", "answer"),
    [
        ("ghcr.io", "ghcr.io", "team/envs", True),
        ("ghcr.io", "GHCR.io", "team/envs", True),
        ("ghcr.io", "ghcr.io:443", "team/envs", False),
        ("ghcr.io", "ghcr.io.evil.example", "team/envs", False),
        ("ghcr.io", "evil-ghcr.io", "team/envs", False),
        ("ghcr.io/team", "ghcr.io", "team", True),
        ("ghcr.io/team", "ghcr.io", "team/envs", True),
        ("ghcr.io/team", "ghcr.io", "teams/envs", False),
        ("*.example.com", "eu.registry.example.com", "envs", True),
        ("*.example.com", "example.com", "envs", False),
        ("*.example.com", "evilexample.com", "envs", False),
        ("*.example.com:5000/team", "a.example.com:5000", "team/envs", True),
        ("*.example.com:5000/team", "a.example.com", "team/envs", False),
        ("oci:", "oci", "envs", False),
        ("[::1]:5000/team", "[::1]:5000", "team/envs", True),
    ],
)
def test_an_entry_allows_a_host_or_a_part_of_its_repositories(
    allowed: str, registry: str, repository: str, answer: bool
) -> None:
    assert Policy(allowed_registries=(allowed,)).allows(registry, repository) is answer
    assert Policy().allows(registry, repository)


@pytest.mark.parametrize(
    "call",
    [
        lambda trust: lamella.layers.tags("registry.invalid/team/envs", trust=trust),
        lambda trust: lamella.layers.login("registry.invalid", "ada", "secret", trust=trust),
    ],
    ids=["tags", "login"],
)
def test_plain_http_is_refused(
    call: Callable[[Trust], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    administer(monkeypatch, tmp_path, insecure=False)
    with pytest.raises(PolicyError, match=r"^registry\.invalid: plain HTTP is refused by .*machine\.toml; use HTTPS"):
        call(Trust(insecure=True))


@pytest.mark.parametrize("required", ["insecure = false", "allowed-registries = 'registry.invalid'"])
def test_mirrors_that_others_than_root_can_write_are_refused(
    required: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    administer(monkeypatch, tmp_path, required)
    with pytest.raises(
        PolicyError, match=r"^--hosts-dir .*: others than root can write it, which .*machine\.toml rules"
    ):
        lamella.layers.tags("registry.invalid/team/envs", trust=Trust(hosts_dir=str(tmp_path)))
    # It can switch a registry's own verification off.
    with pytest.raises(PolicyError, match=r"^--hosts-dir .*: others than root can write it"):
        lamella.layers.login("registry.invalid", "ada", "secret", trust=Trust(hosts_dir=str(tmp_path)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("require-signatures = '/key.pub'", "unknown key 'require-signatures'; use allowed-registries, base, "),
        ("require-signature = ''", "require-signature is not a string or a list of strings"),
        ("require-signature = []", "require-signature is not a string or a list of strings"),
        ("require-signature = 'key.pub'", "require-signature key.pub: not an absolute path"),
        ("require-identity = 'reference'", "require-identity without require-signature"),
        ("allowed-registries = []", "allowed-registries is not a string or a list of strings"),
        ("allowed-registries = ['https://ghcr.io']", "allowed-registries https://ghcr.io: not HOST"),
        ("allowed-registries = ['oci:relative']", "allowed-registries oci:relative: not HOST"),
        ("insecure = 'false'", "insecure is not true or false"),
        ("insecure =", "invalid TOML: "),
        ("a = " + "[" * 5000, "invalid TOML: "),
    ],
)
def test_a_policy_that_is_not_understood_stops_everything(
    text: str, problem: str, tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = administer(monkeypatch, tmp_path, text)
    with pytest.raises(PolicyError) as caught:
        lamella.layers.inspect(reference)
    assert str(caught.value).startswith(f"{path}: {problem}")
    assert str(caught.value).endswith("; an administrator must correct it")


@pytest.mark.parametrize("kind", ["fifo", "folder", "dangling link", "long"])
def test_a_policy_that_is_not_a_file_stops_everything(
    kind: str, tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "machine.toml"
    monkeypatch.setattr(policy, "PATH", str(path))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "long":
        path.write_bytes(b"#" * (2 << 20))
    else:
        path.symlink_to(tmp_path / "missing")
    with pytest.raises(PolicyError, match=r"machine\.toml: .*an administrator must"):
        lamella.layers.inspect(reference)


def test_a_required_key_that_is_missing_stops_everything(
    tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = key_pair(tmp_path)
    administer(monkeypatch, tmp_path, require_signature=[public, f"{tmp_path}/missing.pub"])
    lamella.layers.sign(reference, private)
    with pytest.raises(lamella.layers.SignatureError, match=r"can't read the key .*missing\.pub"):
        lamella.layers.inspect(reference)


def test_a_change_of_the_policy_is_obeyed_by_a_process_that_runs(
    tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = administer(monkeypatch, tmp_path, allowed_registries=["oci:"])
    assert lamella.layers.inspect(reference).environments
    path.write_text("allowed-registries = ['ghcr.io']\n")
    with pytest.raises(PolicyError, match="not in allowed-registries"):
        lamella.layers.inspect(reference)
    path.unlink()
    assert machine_policy() == Policy()


def test_the_policy_lists_every_setting_of_the_command() -> None:
    assert {setting.name for setting in settings.EVERY} - policy.SETTINGS == {
        "insecure",
        "require-identity",
        "require-signature",
    }
