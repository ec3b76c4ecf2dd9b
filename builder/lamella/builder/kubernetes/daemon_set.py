"""The manifest of the agent, which keeps a store on each node for the method host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lamella.builder.errors import InvalidManifest
from lamella.builder.kubernetes.additions import AGENT_FOLDER, ENVIRONMENTS, STORE
from lamella.builder.kubernetes.edits import Style, block

NAME = "lamella-agent"
_METRICS = ("127.0.0.1", 9464)
_SECRET_FOLDER = "/pull-secret"


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """The agent that a DaemonSet runs on each node. Raises `InvalidManifest` without an image."""

    image: str
    """The node image."""
    pull: tuple[str, ...] = ()
    """References to pull ahead, and again when their tags move."""
    pull_secret: str = ""
    """Secret in the agent's namespace with the registry's credentials."""
    namespace: str = "lamella"
    keep: str = ""
    """Size that the store may grow to, such as 50GB; empty for no bound."""
    allow: tuple[str, ...] = ()
    """Registries and repositories that pods may ask for, besides those of `pull`. The agent does not start without any."""

    def __post_init__(self) -> None:
        if not self.image:
            raise InvalidManifest(
                "--daemonset: needs the node image; build one with make node-image, push it with lamella copy, and name "
                "it with --image or LAMELLA_NODE_IMAGE"
            )


def agent_daemon_set(options: AgentOptions) -> str:
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


def _pod(options: AgentOptions) -> dict[str, Any]:
    secret = options.pull_secret
    volumes: list[dict[str, Any]] = [
        {"name": "store", "hostPath": {"path": STORE, "type": "DirectoryOrCreate"}},
        {"name": "socket", "hostPath": {"path": AGENT_FOLDER, "type": "DirectoryOrCreate"}},
    ]
    if secret:
        key = {"key": ".dockerconfigjson", "path": "config.json"}
        volumes.append({"name": "pull-secret", "secret": {"secretName": secret, "items": [key], "optional": True}})
    return {
        **({"imagePullSecrets": [{"name": secret}]} if secret else {}),
        "automountServiceAccountToken": False,
        # It looks in /proc for the environments that pods use.
        "hostPID": True,
        # Metrics are on the node's loopback address, where the kubelet's probe finds them too.
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "priorityClassName": "system-node-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "containers": [_agent(options)],
        "volumes": volumes,
    }


def _agent(options: AgentOptions) -> dict[str, Any]:
    host, port = _METRICS
    command = ["lamella", "agent", "--store", STORE, "--socket", f"{AGENT_FOLDER}/agent.sock"]
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
    if options.pull_secret:
        mounts.append({"name": "pull-secret", "mountPath": _SECRET_FOLDER, "readOnly": True})
    probe = {"httpGet": {"host": host, "port": port, "path": "/metrics"}, "periodSeconds": 10}
    return {
        "name": "agent",
        "image": options.image,
        "command": command,
        **({"env": [{"name": "DOCKER_CONFIG", "value": _SECRET_FOLDER}]} if options.pull_secret else {}),
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {"privileged": True, "runAsUser": 0, "readOnlyRootFilesystem": True},
        "startupProbe": probe | {"failureThreshold": 30},
        "livenessProbe": probe | {"timeoutSeconds": 5, "failureThreshold": 6},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
