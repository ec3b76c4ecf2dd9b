"""What each method adds to a pod: volumes, an init container, and in each container a mount and variables.

Values alone, as `json` has them; `injection` writes them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamella.builder.errors import InvalidManifest
from lamella.builder.kubernetes.nodes import scalars, text_of, value

if TYPE_CHECKING:
    from lamella.builder.kubernetes.options import InjectOptions
    from lamella.builder.kubernetes.pod_templates import Container, PodTemplate

NAME = "lamella-environment"
"""Of the volume, and of the init container that makes the environment."""
CHECK = "lamella-check"
"""Of the init container that runs its interpreter once, in the image of a container that gets it."""
INIT_CONTAINERS = frozenset({NAME, CHECK})
SECRET, SOCKET = "lamella-pull-secret", "lamella-agent"
"""Of further volumes."""
VOLUMES = frozenset({NAME, SECRET, SOCKET})
POD_UID = "LAMELLA_POD_UID"
VARIABLES = frozenset({POD_UID})
"""Of variables that containers get besides PATH."""
ARCHITECTURE = "kubernetes.io/arch"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What most images have as PATH; an image's own can't be read from YAML."""

STORE = "/var/lib/lamella"
AGENT_FOLDER = "/run/lamella"
AGENT_SOCKET = f"{AGENT_FOLDER}/agent.sock"
ENVIRONMENTS = f"{STORE}/environments"

_IN_POD = "/lamella"
"""Where the init container has a pod's own store and environment: beside each other, as hard links can't cross mounts."""
_SECRET_FOLDER = "/pull-secret"
_ENOUGH_MEMORY = 512 * 1024**2
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kKMGTPE]?i?)")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}

# In the image of the container that gets the environment, as only that one's C library counts.
_NEEDS = (
    "import os, sys; has = os.confstr('CS_GNU_LIBC_VERSION').split()[1]; needs = '%s'; "
    "sys.exit(f'lamella: this image has glibc {has}, and the environment needs {needs}; use a newer image' "
    "if [*map(int, has.split('.'))] < [*map(int, needs.split('.'))] else 0)"
)
# "$0" is the interpreter, and "$@" its arguments.
_PRESENT = (
    'if [ ! -x "$0" ]; then echo "lamella: $0: missing in the image volume; this node\'s runtime has no subPath for image '
    'volumes: use containerd 2.2 or CRI-O 1.33, or lamella inject --method init" >&2; exit 1; fi; exec "$0" "$@"'
)


@dataclass(frozen=True, slots=True)
class Additions:
    """Values to add to one pod template."""

    volumes: tuple[dict[str, Any], ...]
    init_containers: tuple[dict[str, Any], ...]
    mount: dict[str, Any]
    """For each container that gets the environment."""
    variables: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Credentials:
    """A secret of the type kubernetes.io/dockerconfigjson as the file that Lamella reads."""

    variable: dict[str, Any]
    mount: dict[str, Any]
    volume: dict[str, Any]

    @classmethod
    def of(cls, volume: str, secret: str) -> Credentials:
        """Return what a pod needs to read `secret` from a volume of that name."""
        key = {"key": ".dockerconfigjson", "path": "config.json"}
        return cls(
            {"name": "DOCKER_CONFIG", "value": _SECRET_FOLDER},
            {"name": volume, "mountPath": _SECRET_FOLDER, "readOnly": True},
            # Optional, so that a pod without it fails with the registry's answer in its log instead of waiting.
            {"name": volume, "secret": {"secretName": secret, "items": [key], "optional": True}},
        )


def additions(template: PodTemplate, chosen: tuple[Container, ...], options: InjectOptions) -> Additions:
    """Return what `options` adds to `template`, whose containers `chosen` get the environment."""
    match options.method:
        case "image-volume":
            return _image_volume(template, chosen, options)
        case "host":
            return _host(template, chosen, options)
        case _:
            return _init(template, chosen, options)


def _init(template: PodTemplate, chosen: tuple[Container, ...], options: InjectOptions) -> Additions:
    command = ["lamella", "mount", "--method", "hardlinks", "--prefix", options.target, options.reference]
    mount: dict[str, Any] = {"name": NAME, "mountPath": options.target}
    variables: tuple[dict[str, Any], ...] = ()
    if options.node_store:
        # The same path in every pod: the store's records name environments by path.
        folder, store, part = options.node_store, options.node_store, f"pods/$({POD_UID})/env"
        variables = ({"name": POD_UID, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},)
        mount |= {"subPathExpr": part}
        volume: dict[str, Any] = {"hostPath": {"path": folder, "type": "DirectoryOrCreate"}}
    else:
        folder, store, part = _IN_POD, f"{_IN_POD}/store", "env"
        mount |= {"subPath": part}
        volume = {"emptyDir": {}}
    command.append(f"{folder}/{part}")
    environment: list[dict[str, Any]] = [{"name": "LAMELLA_STORE", "value": store}, *variables]
    mounts: list[dict[str, Any]] = [{"name": NAME, "mountPath": folder}]
    volumes = [{"name": NAME} | volume]
    if secret := _pull_secret(template, options):
        credentials = Credentials.of(SECRET, secret)
        environment.append(credentials.variable)
        mounts.append(credentials.mount)
        volumes.append(credentials.volume)
    identity = _root() if options.node_store else _non_root(template)
    container = _container(
        NAME, options.image, command, chosen[0], identity=identity, mounts=mounts, environment=environment
    )
    mount["readOnly"] = True
    checks = _checks(chosen[0], mount, options, variables)
    return Additions(tuple(volumes), (container, *checks), mount, variables)


def _host(template: PodTemplate, chosen: tuple[Container, ...], options: InjectOptions) -> Additions:
    command = ["lamella", "mount", "--agent", AGENT_SOCKET, options.reference]
    mounts = [{"name": SOCKET, "mountPath": AGENT_FOLDER, "readOnly": True}]
    container = _container(NAME, options.image, command, chosen[0], identity=_non_root(template), mounts=mounts)
    # The kubelet needs the folder before the agent mounts there.
    folder = f"{ENVIRONMENTS}/sha256-{options.digest}"
    volumes: tuple[dict[str, Any], ...] = (
        {"name": NAME, "hostPath": {"path": folder, "type": "DirectoryOrCreate"}},
        {"name": SOCKET, "hostPath": {"path": AGENT_FOLDER, "type": "Directory"}},
    )
    mount = {"name": NAME, "mountPath": options.target, "mountPropagation": "HostToContainer", "readOnly": True}
    return Additions(volumes, (container, *_checks(chosen[0], mount, options)), mount)


def _image_volume(template: PodTemplate, chosen: tuple[Container, ...], options: InjectOptions) -> Additions:
    mount = {"name": NAME, "mountPath": options.target, "subPath": options.target.lstrip("/"), "readOnly": True}
    volume = {"name": NAME, "image": {"reference": options.reference, "pullPolicy": "IfNotPresent"}}
    if options.check and not chosen[0].image:
        raise InvalidManifest(
            f"{template.label}: container {chosen[0].name} has no image, in which the environment is checked; add its "
            "image, or use --no-check"
        )
    return Additions((volume,), _checks(chosen[0], mount, options), mount)


def _checks(
    container: Container, mount: dict[str, Any], options: InjectOptions, variables: tuple[dict[str, Any], ...] = ()
) -> tuple[dict[str, Any], ...]:
    """Return an init container that fails before the worker starts if the environment can't run in its image."""
    if not options.check or not container.image:
        return ()
    program = _NEEDS % options.glibc if options.glibc else ""
    command = [f"{options.target}/bin/python", "-I", "-c", program]
    if options.method == "image-volume":
        command = ["sh", "-c", _PRESENT, *command]
    # As the user of the container whose image this is: an image's own may be root.
    own = scalars(value(container.node, "securityContext"))
    identity: dict[str, Any] = {key: int(own[key]) for key in ("runAsUser", "runAsGroup") if own.get(key, "").isdigit()}
    if own.get("runAsNonRoot") == "true":
        identity["runAsNonRoot"] = True
    made = _container(
        CHECK, container.image, command, container, identity=identity, mounts=[mount], environment=list(variables)
    )
    return (made,)


def _container(
    name: str,
    image: str,
    command: list[str],
    beside: Container,
    *,
    identity: dict[str, Any],
    mounts: list[dict[str, Any]],
    environment: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return an init container, as the Restricted profile allows it."""
    # The last lines of its log are the reason that `kubectl describe` shows.
    return {
        "name": name,
        "image": image,
        "command": command,
        **({"env": environment} if environment else {}),
        "resources": _resources(beside, unpacks="hardlinks" in command),
        "securityContext": {
            **identity,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def _root() -> dict[str, Any]:
    # A store on the node is root's.
    return {"runAsUser": 0, "runAsNonRoot": False}


def _non_root(template: PodTemplate) -> dict[str, Any]:
    """Return the user of the node image, which is not root, unless the pod sets root."""
    return {} if text_of(template.security, "runAsUser") == "0" else {"runAsNonRoot": True}


def _pull_secret(template: PodTemplate, options: InjectOptions) -> str:
    if options.pull_secret or not template.pull_secrets:
        return options.pull_secret
    if len(set(template.pull_secrets)) > 1:
        raise InvalidManifest(
            f"{template.label}: has the image pull secrets {', '.join(template.pull_secrets)}; name the one for the "
            "environment's registry with --pull-secret"
        )
    return template.pull_secrets[0]


def _resources(beside: Container, *, unpacks: bool) -> dict[str, Any]:
    """Return processor and memory of a container beside it, so that the pod needs no more and keeps its QoS class.

    Usual values without them, or if that is too little memory for an init container that unpacks layers.
    """
    found: dict[str, Any] = {}
    for kind in ("requests", "limits"):
        given = scalars(value(beside.node, "resources", kind))
        if taken := {each: given[each] for each in ("cpu", "memory") if given.get(each)}:
            found[kind] = taken
    limit = found.get("limits", {}).get("memory", "")
    if found and not (unpacks and limit and _bytes(limit) < _ENOUGH_MEMORY):
        return found
    if unpacks:
        return {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
    return {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}


def _bytes(quantity: str) -> float:
    """Return a quantity as a number; infinity for one that is not understood, such as a variable."""
    found = _QUANTITY.fullmatch(quantity)
    if not found:
        return float("inf")
    unit = found[2].lower()
    base = 1024 if unit.endswith("i") else 1000
    return float(found[1]) * float(base ** _POWERS[unit.rstrip("i")])
