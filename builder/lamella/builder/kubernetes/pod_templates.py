"""The templates of pods in Kubernetes' objects and in those of operators.

Most have the shape of Kubernetes' own PodTemplateSpec, at a path that depends on the kind. Spark's operator and Argo have
shapes of their own: volumes, containers and annotations in other places.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamella.builder.kubernetes.nodes import entries, items, text_of, value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.builder.kubernetes.nodes import Node

_SPEC = ("spec.template",)
_ARGO = "argoproj.io"
_KUBEFLOW = "kubeflow.org"
_RAY = "ray.io"
_DASK = "kubernetes.dask.org"
_SPARK = "sparkoperator.k8s.io"
_RAY_CLUSTER = ("headGroupSpec.template", "workerGroupSpecs.*.template")

TEMPLATES: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "Pod"): ("",),
    ("", "PodTemplate"): ("template",),
    ("", "ReplicationController"): _SPEC,
    ("apps", "Deployment"): _SPEC,
    ("apps", "StatefulSet"): _SPEC,
    ("apps", "DaemonSet"): _SPEC,
    ("apps", "ReplicaSet"): _SPEC,
    ("batch", "Job"): _SPEC,
    ("batch", "CronJob"): ("spec.jobTemplate.spec.template",),
    ("serving.knative.dev", "Service"): _SPEC,
    (_ARGO, "Rollout"): _SPEC,
    (_DASK, "DaskWorkerGroup"): ("spec.worker",),
    (_DASK, "DaskCluster"): ("spec.worker", "spec.scheduler"),
    (_DASK, "DaskJob"): ("spec.job", "spec.cluster.spec.worker", "spec.cluster.spec.scheduler"),
    (_RAY, "RayCluster"): tuple(f"spec.{each}" for each in _RAY_CLUSTER),
    (_RAY, "RayJob"): (*(f"spec.rayClusterSpec.{each}" for each in _RAY_CLUSTER), "spec.submitterPodTemplate"),
    (_RAY, "RayService"): tuple(f"spec.rayClusterConfig.{each}" for each in _RAY_CLUSTER),
    ("jobset.x-k8s.io", "JobSet"): ("spec.replicatedJobs.*.template.spec.template",),
    ("leaderworkerset.x-k8s.io", "LeaderWorkerSet"): (
        "spec.leaderWorkerTemplate.leaderTemplate",
        "spec.leaderWorkerTemplate.workerTemplate",
    ),
    (_KUBEFLOW, "Notebook"): _SPEC,
    (_KUBEFLOW, "PyTorchJob"): ("spec.pytorchReplicaSpecs.*.template",),
    (_KUBEFLOW, "TFJob"): ("spec.tfReplicaSpecs.*.template",),
    (_KUBEFLOW, "XGBoostJob"): ("spec.xgbReplicaSpecs.*.template",),
    (_KUBEFLOW, "JAXJob"): ("spec.jaxReplicaSpecs.*.template",),
    (_KUBEFLOW, "MPIJob"): ("spec.mpiReplicaSpecs.*.template",),
    (_SPARK, "SparkApplication"): ("spec",),
    (_SPARK, "ScheduledSparkApplication"): ("spec.template",),
    (_ARGO, "Workflow"): ("spec",),
    (_ARGO, "WorkflowTemplate"): ("spec",),
    (_ARGO, "ClusterWorkflowTemplate"): ("spec",),
    (_ARGO, "CronWorkflow"): ("spec.workflowSpec",),
}
"""Paths of the templates by API group and kind; * stands for each item of a list, or each value of a mapping."""
WITHOUT_IMAGE_VOLUMES = frozenset({"DaskCluster", "DaskJob", "DaskWorkerGroup"})
"""Kinds whose operator (dask-kubernetes 2025.7.0) embeds a schema of pods from before Kubernetes 1.31."""
_WORKFLOWS = {"Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow"}


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a template."""

    name: str
    node: Node
    image: str
    starts: bool = False
    """Whether it is an init container, which gets the environment only by name."""


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """A template of pods: the mappings that hold its parts."""

    kind: str
    name: str
    """Of the object."""
    path: str
    """Of the template in the object; empty for a pod."""
    owner: Node
    """The mapping below which the annotations are."""
    annotations: tuple[str, ...]
    """The path of the annotations below `owner`."""
    pod: Node
    """The mapping with `initContainers`, `nodeSelector` and the pod's settings."""
    volumes: Node
    """The mapping with `volumes`."""
    containers: tuple[Container, ...]
    pull_secrets: tuple[str, ...]
    security: Node | None
    """The pod's security context."""
    selector: Node | None = None
    """The node selector that applies to the pod if it has none of its own."""
    affinity: Node | None = None
    """The affinity that applies to the pod if it has none of its own."""

    @property
    def label(self) -> str:
        """The template for messages, such as `Deployment web`."""
        return f"{self.kind} {self.name}".rstrip()


def pod_templates(root: Node) -> Iterator[PodTemplate]:
    """Yield the templates of a document; of a List, those of its items, each list once if aliases repeat it."""
    yield from _templates(root, set())


def _templates(root: Node, lists: set[int]) -> Iterator[PodTemplate]:
    if root.kind != "mapping" or id(root) in lists:
        return
    kind, version = text_of(root, "kind"), text_of(root, "apiVersion")
    group = version.rpartition("/")[0]
    if kind.endswith("List") and (group, kind) not in TEMPLATES:
        lists.add(id(root))
        for each in items(value(root, "items")):
            yield from _templates(each, lists)
        return
    paths = TEMPLATES.get((group, kind), ())
    name = text_of(root, "metadata", "name") or text_of(root, "metadata", "generateName")
    for path, node in [found for each in paths for found in _at(root, tuple(filter(None, each.split("."))), "")]:
        if group == _SPARK:
            yield from _of_spark(kind, name, path, node)
        elif group == _ARGO and kind in _WORKFLOWS:
            yield from _of_argo(kind, name, path, node)
        elif (spec := value(node, "spec")) and spec.kind == "mapping" and spec.children:
            # An operator of Dask gives its pods the annotations of the object.
            made = _pod(kind, name, path, node, spec)
            yield replace(made, owner=root) if group == _DASK else made


def _at(node: Node, path: tuple[str, ...], name: str) -> Iterator[tuple[str, Node]]:
    if not path:
        if node.kind == "mapping":
            yield name, node
        return
    if path[0] != "*":
        below = value(node, path[0])
        if below is not None:
            yield from _at(below, path[1:], f"{name}.{path[0]}".lstrip("."))
        return
    named = [(str(index), each) for index, each in enumerate(items(node))]
    if node.kind == "mapping":
        named = [(each.key.value, each.value.content) for each in entries(node)]
    for key, each in named:
        yield from _at(each, path[1:], f"{name}.{key}")


def _pod(kind: str, name: str, path: str, template: Node, spec: Node) -> PodTemplate:
    containers = [
        Container(text_of(each, "name"), each, text_of(each, "image"), key == "initContainers")
        for key in ("containers", "initContainers")
        for each in items(value(spec, key))
        if each.kind == "mapping" and each.children
    ]
    secrets = tuple(text_of(each, "name") for each in items(value(spec, "imagePullSecrets")))
    return PodTemplate(
        kind,
        name,
        path,
        template,
        ("metadata", "annotations"),
        spec,
        spec,
        tuple(containers),
        tuple(filter(None, secrets)),
        value(spec, "securityContext"),
    )


def _of_spark(kind: str, name: str, path: str, spec: Node) -> Iterator[PodTemplate]:
    """Yield the driver and the executor, which share the volumes of the application."""
    secrets = tuple(each.value for each in items(value(spec, "imagePullSecrets")) if each.value)
    for role in ("driver", "executor"):
        node = value(spec, role)
        if node is not None and node.kind == "mapping" and node.children:
            image = text_of(node, "image") or text_of(spec, "image")
            made = _pod(kind, name, f"{path}.{role}", node, node)
            yield replace(
                made,
                annotations=("annotations",),
                volumes=spec,
                containers=(Container(role, node, image), *(each for each in made.containers if each.starts)),
                pull_secrets=secrets,
                security=value(node, "podSecurityContext"),
                selector=value(spec, "nodeSelector"),
            )


def _of_argo(kind: str, name: str, path: str, spec: Node) -> Iterator[PodTemplate]:
    """Yield the templates of a workflow that run pods. A container has its template's name, as it has none of its own."""
    secrets = tuple(text_of(each, "name") for each in items(value(spec, "imagePullSecrets")))
    for index, node in enumerate(items(value(spec, "templates"))):
        if node.kind != "mapping" or not node.children:
            continue
        called = text_of(node, "name")
        made = _pod(kind, name, f"{path}.templates.{index}", node, node)
        containers = [
            Container(called, each, text_of(each, "image"))
            for each in (value(node, "container"), value(node, "script"))
            if each and each.kind == "mapping" and each.children
        ]
        containers += [
            Container(text_of(each, "name"), each, text_of(each, "image"))
            for each in items(value(node, "containerSet", "containers"))
            if each.kind == "mapping" and each.children
        ]
        if containers:
            yield replace(
                made,
                containers=(*containers, *(each for each in made.containers if each.starts)),
                pull_secrets=tuple(filter(None, secrets)),
                security=value(node, "securityContext") or value(spec, "securityContext"),
                selector=value(spec, "nodeSelector"),
                affinity=value(spec, "affinity"),
            )
