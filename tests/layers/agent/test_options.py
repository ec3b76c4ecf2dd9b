"""The registries that an agent pulls from for others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.layers import AgentOptions, InvalidReference, PolicyError, Trust
from lamella.layers.agent.options import allowed
from lamella.layers.oci.reference import Reference
from support.policies import administer

if TYPE_CHECKING:
    from pathlib import Path


def check(options: AgentOptions, reference: str) -> None:
    allowed(options).check(Reference.parse(reference), Trust())


def test_an_agent_without_a_limit_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"pods could read every private environment.*limit it with --allow"):
        allowed(AgentOptions())


@pytest.mark.parametrize(
    "reference",
    ["ghcr.io/team/envs:v1", "ghcr.io/team:v1", "a.example.com/x:v1", f"ghcr.io/team/envs@sha256:{'0' * 64}"],
)
def test_repositories_of_a_pattern_are_allowed(reference: str) -> None:
    check(AgentOptions(allow=("ghcr.io/team", "*.example.com")), reference)


@pytest.mark.parametrize(
    "reference",
    ["ghcr.io/teams/envs:v1", "docker.io/team/envs:v1", "example.com/x:v1", "team/envs", "oci:/srv/images:v1"],
)
def test_repositories_outside_the_limit_are_refused(reference: str) -> None:
    with pytest.raises(PolicyError, match=r"not allowed by the agent of this node; add --allow \S+ to its command"):
        check(AgentOptions(allow=("ghcr.io/team", "*.example.com")), reference)


def test_a_reference_to_keep_allows_its_repository() -> None:
    check(AgentOptions(pull=("ghcr.io/team/envs:v1",)), "ghcr.io/team/envs:v2")
    with pytest.raises(PolicyError):
        check(AgentOptions(pull=("ghcr.io/team/envs:v1",)), "ghcr.io/team/others:v1")


def test_a_layout_folder_is_allowed_by_its_real_path_alone(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/link").symlink_to("/etc")
    options = AgentOptions(allow=(f"oci:{tmp_path}/images",))
    check(options, f"oci:{tmp_path}/images/team:v1")
    for outside in (f"{tmp_path}/images/../other", f"{tmp_path}/images/link", "/etc"):
        with pytest.raises(PolicyError):
            check(options, f"oci:{outside}:v1")
    with pytest.raises(InvalidReference, match="not an absolute path"):
        check(options, "oci:images:v1")


def test_an_invalid_pattern_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"--allow https://ghcr\.io: not a registry or repository; use HOST"):
        allowed(AgentOptions(allow=("https://ghcr.io",)))


def test_the_machine_s_policy_is_a_limit_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    administer(monkeypatch, tmp_path, allowed_registries=["ghcr.io/team"])
    check(AgentOptions(), "ghcr.io/team/envs:v1")
    for options in (AgentOptions(), AgentOptions(allow=("docker.io",)), AgentOptions(pull=("docker.io/a/b:v1",))):
        with pytest.raises(PolicyError, match="not in allowed-registries"):
            check(options, "docker.io/team/envs:v1")
