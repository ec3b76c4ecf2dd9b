"""The manifest of the agent, which keeps a store on each node for the method host."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lamella.builder.errors import InvalidManifest
from lamella.builder.kubernetes.additions import AGENT_FOLDER, AGENT_SOCKET, ENVIRONMENTS, STORE, Credentials
from lamella.builder.kubernetes.edits import Style, block

NAME = "lamella-agent"
_METRICS = ("127.0.0.1", 9464)
_SECRET = "pull-secret"
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class DaemonSetOptions:
    """The agent that a DaemonSet runs on each node. Raises `InvalidManifest` without an image, or if it may give nothing."""

    image: str
    """The node image."""
    pull: tuple[str, ...] = ()
    """References to pull ahead, and again when their tags move."""
    allow: tuple[str, ...] = ()
    """Registries and repositories that pods may ask for, besides those of `pull`."""
    pull_secret: str = ""
    """Secret in the agent's namespace with the registry's credentials."""
    namespace: str = "lamella"
    keep: str = ""
    """Size that the store may grow to, such as 50GB; empty for no bound."""

    def __post_init__(self) -> None:
        if not self.image:
            raise InvalidManifest(
                "--daemonset: needs the node image; build one with make node-image, push it with lamella copy, and name "
                "it with --image or LAMELLA_NODE_IMAGE"
            )
        if not self.pull and not self.allow:
            raise InvalidManifest(
                "--daemonset: the agent gives pods only what it is allowed to; name a registry or repository with "
                "--allow, or references with --pull"
            )
        if not _LABEL.fullmatch(self.namespace):
            raise InvalidManifest(
                f"--namespace {self.namespace}: not a namespace; use lower-case letters, digits and '-', at most 63"
            )


def agent_daemon_set(options: DaemonSetOptions) -> str:
    """Return the YAML of a namespace and of the DaemonSet that runs `lamella agent` in it on each Linux node."""
    # It mounts for other pods, which needs a privileged container.
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": options.namespace, "labels": labels},
    }
    selected = {"app.kubernetes.io/name": NAME}
    daemon_set = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": options.namespace, "labels": selected},
        "spec": {
            "selector": {"matchLabels": selected},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {"metadata": {"labels": selected}, "spec": _pod(options)},
        },
    }
    documents = ["\n".join(block(each, 0, Style())) for each in (namespace, daemon_set)]
    return "\n---\n".join(documents) + "\n"


def _pod(options: DaemonSetOptions) -> dict[str, Any]:
    secret = options.pull_secret
    volumes: list[dict[str, Any]] = [
        {"name": "store", "hostPath": {"path": STORE, "type": "DirectoryOrCreate"}},
        {"name": "socket", "hostPath": {"path": AGENT_FOLDER, "type": "DirectoryOrCreate"}},
    ]
    if secret:
        volumes.append(Credentials.of(_SECRET, secret).volume)
    return {
        **({"imagePullSecrets": [{"name": secret}]} if secret else {}),
        "automountServiceAccountToken": False,
        # It looks in /proc for the environments that pods use.
        "hostPID": True,
        # Metrics are on the node's loopback address.
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "priorityClassName": "system-node-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "containers": [_agent(options)],
        "volumes": volumes,
    }


def _agent(options: DaemonSetOptions) -> dict[str, Any]:
    host, port = _METRICS
    command = ["lamella", "agent", "--store", STORE, "--socket", AGENT_SOCKET]
    command += ["--environments", ENVIRONMENTS, "--metrics", f"{host}:{port}"]
    for reference in options.pull:
        command += ["--pull", reference]
    for pattern in options.allow:
        command += ["--allow", pattern]
    command += ["--keep", options.keep] if options.keep else []
    mounts: list[dict[str, Any]] = [
        {"name": "store", "mountPath": STORE, "mountPropagation": "Bidirectional"},
        {"name": "socket", "mountPath": AGENT_FOLDER},
    ]
    environment: list[dict[str, Any]] = []
    if options.pull_secret:
        credentials = Credentials.of(_SECRET, options.pull_secret)
        environment.append(credentials.variable)
        mounts.append(credentials.mount)
    check = ["lamella", "agent", "--check", "--socket", AGENT_SOCKET]
    probe = {"exec": {"command": check}, "periodSeconds": 15, "timeoutSeconds": 10}
    return {
        "name": "agent",
        "image": options.image,
        "command": command,
        **({"env": environment} if environment else {}),
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {"privileged": True, "runAsUser": 0, "readOnlyRootFilesystem": True},
        "startupProbe": probe | {"failureThreshold": 20},
        "livenessProbe": probe | {"failureThreshold": 4},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
