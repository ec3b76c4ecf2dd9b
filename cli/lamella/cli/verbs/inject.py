"""`lamella inject`: add an environment to the pods of a Kubernetes manifest, and change nothing else of it."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamella.cli.errors import UsageError
from lamella.cli.modes import Mode, flags_of
from lamella.cli.output import remark, result_json
from lamella.cli.settings import NODE_IMAGE, TRUST, add_settings, trust_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lamella.builder import InjectedPod, InjectOptions

SETTINGS = (NODE_IMAGE, *TRUST)
MODES = (
    Mode("--daemonset", flags_of("--output --pull-secret --image --pull --allow --keep --namespace")),
    Mode("--remove", flags_of("--output --in-place")),
    Mode(
        "--env",
        flags_of(
            "--output --in-place --method --kubernetes-version --container --path --no-path --no-check --pull-secret",
            "--node-store --image --offline",
            TRUST,
        ),
    ),
)
METHODS = ("auto", "image-volume", "init", "host")
STANDARD = "-"
NAMESPACE = "lamella"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="YAML or JSON manifest; - for standard input")
    parser.add_argument(
        "--env", metavar="REFERENCE", help="environment: registry/repository:tag, with or without @digest"
    )
    parser.add_argument("--remove", action="store_true", help="remove the environment, and restore the original")
    parser.add_argument("-o", "--output", metavar="FILE", help="file to write (default: standard output)")
    parser.add_argument("-i", "--in-place", action="store_true", help="write the result to FILE itself")
    pods = parser.add_argument_group("pods")
    pods.add_argument(
        "--method",
        action="append",
        choices=METHODS,
        help="how pods get the environment: as a volume of its image, by an init container, or from the node's agent; "
        "auto takes image-volume from Kubernetes 1.35 on, else init (default: auto)",
    )
    pods.add_argument(
        "--kubernetes-version",
        default="",
        metavar="VERSION",
        help="version of the cluster; chooses the method, and refuses one that the cluster does not have",
    )
    pods.add_argument(
        "--container",
        action="append",
        default=[],
        metavar="NAME",
        help="container to add it to (default: all that are not init containers); repeatable",
    )
    pods.add_argument(
        "--path", default="", metavar="PATH", help="path in the containers (default: the environment's image prefix)"
    )
    pods.add_argument("--no-path", action="store_true", help="leave the variable PATH alone")
    pods.add_argument(
        "--no-check",
        action="store_true",
        help="do not run the interpreter once, in the first container's image, before the containers start",
    )
    pods.add_argument(
        "--pull-secret",
        default="",
        metavar="NAME",
        help="secret with the registry's credentials, for init and the agent (default: the pod's image pull secret)",
    )
    pods.add_argument(
        "--node-store", default="", metavar="PATH", help="for init: folder of the node with a store that pods share"
    )
    pods.add_argument("--image", "--node-image", dest="node_image", metavar=NODE_IMAGE.metavar, help=NODE_IMAGE.help)
    pods.add_argument("--offline", action="store_true", help="make no request; the reference must have its digest")
    agent = parser.add_argument_group("agent")
    agent.add_argument("--daemonset", action="store_true", help="print the manifest of the agent, for the method host")
    agent.add_argument(
        "--pull",
        action="append",
        default=[],
        metavar="REFERENCE",
        help="reference that the agent pulls ahead; repeatable",
    )
    agent.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PATTERN",
        help="registry or repository that pods may ask the agent for, besides those of --pull; repeatable",
    )
    agent.add_argument(
        "--keep", default="", metavar="SIZE", help="size that the agent's store may grow to, such as 50GB"
    )
    agent.add_argument(
        "--namespace", default=NAMESPACE, metavar="NAME", help=f"namespace of the agent (default: {NAMESPACE})"
    )
    add_settings(parser, TRUST)


@dataclass(frozen=True, slots=True)
class _Result:
    text: str
    reference: str = ""
    method: str = ""
    pods: Sequence[InjectedPod] = ()


def run(arguments: argparse.Namespace) -> int:
    """Write the manifest, and remark on what changed."""
    _check(arguments)
    if arguments.daemonset:
        made, original = _agent(arguments), None
    else:
        original = _read(arguments.file)
        made = _removed(original, arguments) if arguments.remove else _injected(original, arguments)
    output = arguments.file if arguments.in_place else arguments.output
    if output and (arguments.output or made.text != original):
        _write(output, made.text)
    if arguments.json:
        result_json(_document(made, output))
    elif not output:
        sys.stdout.flush()
        sys.stdout.buffer.write(made.text.encode())
        sys.stdout.buffer.flush()
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise `UsageError` for arguments that contradict each other."""
    methods = sorted(set(arguments.method or ["auto"]))
    jobs = [flag for flag, given in _jobs(arguments) if given]
    if len(jobs) != 1:
        given = f"{' and '.join(jobs)}: only one is possible" if jobs else "missing --env REFERENCE"
        raise UsageError(f"inject: {given}; use lamella inject FILE --env REFERENCE, FILE --remove, or --daemonset")
    if len(methods) > 1:
        raise UsageError(f"--method {' and '.join(methods)}: only one is possible; choose it")
    if arguments.daemonset and arguments.file:
        raise UsageError(f"inject {arguments.file}: not used with --daemonset; leave one of them out")
    if not arguments.daemonset and not arguments.file:
        raise UsageError("inject: missing FILE; name a manifest, or - for standard input")
    if arguments.in_place and (arguments.output or arguments.file in (None, STANDARD)):
        raise UsageError("--in-place: needs a FILE to write, and no --output; leave one of them out")


def _jobs(arguments: argparse.Namespace) -> list[tuple[str, bool]]:
    return [
        ("--env", arguments.env is not None),
        ("--remove", arguments.remove),
        ("--daemonset", arguments.daemonset),
    ]


def _injected(text: str, arguments: argparse.Namespace) -> _Result:
    from lamella.builder import inject, injection_method, resolve_options

    method = (arguments.method or ["auto"])[0]
    reason = ""
    if method == "auto":
        method, reason = injection_method(arguments.kubernetes_version)
    options = _options(arguments, method)
    if reason:
        remark(f"method {method}: {reason}", quiet=arguments.quiet)
    if not arguments.offline:
        options = resolve_options(options, trust=trust_of(arguments))
    injected = inject(text, options, name=_name(arguments.file))
    for pod in injected.pods:
        instead = f", in place of {pod.replaced}" if pod.replaced and pod.replaced != pod.reference else ""
        remark(f"{_label(pod)}: {pod.reference} in {', '.join(pod.containers)}{instead}", quiet=arguments.quiet)
    return _Result(injected.text, options.reference, method, injected.pods)


def _removed(text: str, arguments: argparse.Namespace) -> _Result:
    from lamella.builder import remove_environment

    removed = remove_environment(text, name=_name(arguments.file))
    for pod in removed.pods:
        remark(f"{_label(pod)}: removed {pod.reference}", quiet=arguments.quiet)
    if not removed.pods:
        remark(f"{_name(arguments.file)}: has no environment of lamella inject", quiet=arguments.quiet)
    return _Result(removed.text, pods=removed.pods)


def _agent(arguments: argparse.Namespace) -> _Result:
    from lamella.builder import DaemonSetOptions, agent_daemon_set
    from lamella.cli.quantities import size_of
    from lamella.layers import AgentOptions, Reference

    # The same checks as the agent's own, which would fail on every node.
    size_of(arguments.keep or None)
    AgentOptions(allow=tuple(arguments.allow))
    options = DaemonSetOptions(
        arguments.node_image or "",
        tuple(str(Reference.parse(each)) for each in arguments.pull),
        tuple(arguments.allow),
        arguments.pull_secret,
        arguments.namespace,
        arguments.keep,
    )
    return _Result(agent_daemon_set(options), method="host")


def _options(arguments: argparse.Namespace, method: Any) -> InjectOptions:
    """Return the options as the command line has them; the registry completes them. Raises `InvalidManifest`, `UsageError`."""
    from lamella.builder import InjectOptions
    from lamella.layers import Reference

    if arguments.offline and not Reference.parse(arguments.env).digest:
        raise UsageError(f"--env {arguments.env}: has no digest, and --offline asks no registry for it; add @sha256:…")
    return InjectOptions(
        str(Reference.parse(arguments.env)),
        method=method,
        image=arguments.node_image or "",
        prefix=arguments.path or "/opt/env",
        path=arguments.path,
        containers=tuple(arguments.container),
        pull_secret=arguments.pull_secret,
        node_store=arguments.node_store,
        check=not arguments.no_check,
        search_path=not arguments.no_path,
        kubernetes_version=arguments.kubernetes_version,
    )


def _name(file: str) -> str:
    return "standard input" if file == STANDARD else file


def _label(pod: InjectedPod) -> str:
    return " ".join(filter(None, [pod.kind, pod.name, pod.path]))


def _read(file: str) -> str:
    if file == STANDARD:
        content = sys.stdin.buffer.read()
    else:
        try:
            with open(file, "rb") as stream:
                content = stream.read()
        except FileNotFoundError:
            raise UsageError(f"{file}: no such file; name a manifest, or - for standard input") from None
        except IsADirectoryError:
            raise UsageError(
                f"{file}: a folder; give one manifest at a time, or kustomize build {file} | lamella inject -"
            ) from None
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{_name(file)}: not text in UTF-8; convert it first") from None


def _write(file: str, text: str) -> None:
    """Write a file as a whole or not at all; an existing one keeps its permissions."""
    target = os.path.realpath(file)
    if os.path.exists(target) and not os.path.isfile(target):
        with open(target, "wb") as stream:  # /dev/stdout, or a pipe
            stream.write(text.encode())
        return
    beside = f"{target}.{os.getpid()}.lamella"
    try:
        with open(beside, "xb") as stream:
            stream.write(text.encode())
        with contextlib.suppress(FileNotFoundError):
            os.chmod(beside, os.stat(target).st_mode & 0o7777)
        os.replace(beside, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _document(made: _Result, output: str | None) -> dict[str, Any]:
    return {
        "reference": made.reference or None,
        "method": made.method or None,
        "output": output,
        "manifest": None if output else made.text,
        "pods": [
            {
                "kind": pod.kind,
                "name": pod.name,
                "path": pod.path,
                "containers": list(pod.containers),
                "reference": pod.reference,
                "replaced": pod.replaced or None,
            }
            for pod in made.pods
        ],
    }
