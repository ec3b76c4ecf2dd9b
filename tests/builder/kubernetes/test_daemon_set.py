"""The manifest of the agent."""

from __future__ import annotations

import pytest

from lamella.builder import DaemonSetOptions, InvalidManifest, agent_daemon_set
from support.manifests import VERSIONS, load, schema_problems, semantic_problems

IMAGE = "registry.example.com/node:1"


@pytest.mark.slow
@pytest.mark.parametrize("secret", ["", "regcred"])
def test_each_version_of_kubernetes_accepts_the_agent(secret: str) -> None:
    made = agent_daemon_set(
        DaemonSetOptions(IMAGE, ("registry.example.com/team/envs:v1",), pull_secret=secret, keep="50GB")
    )

    assert semantic_problems(made) == []
    for version in VERSIONS:
        assert schema_problems(made, version) == []


def test_the_agent_mounts_for_other_pods_and_has_no_account() -> None:
    options = DaemonSetOptions(IMAGE, allow=("registry.example.com",), namespace="envs")

    namespace, daemon_set = load(agent_daemon_set(options))

    assert namespace["metadata"]["name"] == daemon_set["metadata"]["namespace"] == "envs"
    pod = daemon_set["spec"]["template"]["spec"]
    (agent,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["hostPID"] is True
    assert agent["securityContext"]["privileged"] is True
    assert [each.get("mountPropagation") for each in agent["volumeMounts"]] == ["Bidirectional", None]
    assert agent["command"][-2:] == ["--allow", "registry.example.com"]


@pytest.mark.parametrize(
    ("image", "allow", "message"),
    [
        ("", ("registry.example.com",), "--daemonset: needs the node image; build one with make node-image"),
        (IMAGE, (), "--daemonset: the agent gives pods only what it is allowed to; name a registry or repository"),
    ],
)
def test_an_agent_that_could_do_nothing_is_reported(image: str, allow: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidManifest) as raised:
        DaemonSetOptions(image, allow=allow)

    assert message in str(raised.value)
