"""Kubernetes manifests as a cluster reads them: their schemas, and what the API server checks beyond these."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from kubernetes_validate import utils
from referencing import Registry, Resource
from ruamel.yaml import YAML

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFESTS = Path(__file__).parent.parent / "builder/kubernetes/manifests"
VERSIONS = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
"""The versions of Kubernetes that are supported, and have schemas here."""
BUILT_IN = {"v1", "apps/v1", "batch/v1"}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")


def load(text: str) -> list[Any]:
    """The documents of a manifest, to be read only, by another path through the parser than the code under test takes."""
    return list(_documents(text))


@lru_cache(maxsize=16)
def _documents(text: str) -> tuple[Any, ...]:
    # A manifest is judged by each version's schemas: this parser takes longer than all of them.
    # JSON may be indented with tabs, and YAML not.
    text = text.replace("\t", " ") if text.lstrip("\ufeff").startswith("{\n\t") else text
    return tuple(YAML(typ="safe", pure=True).load_all(text))


def objects(text: str) -> Iterator[dict[str, Any]]:
    """The objects of a manifest, those of lists among them."""
    for document in load(text):
        if isinstance(document, dict) and "kind" in document:
            yield from document["items"] if document["kind"] == "List" else [document]


def pods(found: Any) -> Iterator[dict[str, Any]]:
    """The specifications of pods of any depth; templates of Argo and roles of Spark are not among them."""
    if isinstance(found, dict):
        containers = found.get("containers")
        if isinstance(containers, list) and all(isinstance(each, dict) and "image" in each for each in containers):
            yield found
        for key, each in found.items():
            if key != "containerSet":
                yield from pods(each)
    elif isinstance(found, list):
        for each in found:
            yield from pods(each)


def schema_problems(text: str, version: str) -> list[str]:
    """Objections of the schemas of a Kubernetes version read strictly; pods of operators' kinds are read as Pods."""
    problems = []
    for each in objects(text):
        if each["apiVersion"] in BUILT_IN:
            judged = [each]
        else:
            judged = [
                {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec} for spec in pods(each)
            ]
        for document in judged:
            errors = _validator(version, document["apiVersion"], document["kind"]).iter_errors(document)
            problems += [f"{each['kind']}: {'.'.join(map(str, error.path))}: {error.message}" for error in errors]
    return problems


@cache
def _validator(version: str, api: str, kind: str) -> Any:
    """The validator of a kind, with kubernetes-validate's schemas; its own function reads them again each time."""
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    schema = utils.schema_contents(f"{folder}/{kind.lower()}-{api.replace('/', '-')}.json", version)
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _definitions(version))


@cache
def _definitions(version: str) -> Any:
    contents = utils.schema_contents(f"kubernetes-json-schema/v{version}.0-local-strict/_definitions.json", version)
    return Resource.from_contents(contents) @ Registry()


def semantic_problems(text: str) -> list[str]:
    """Objections of the API server to manifests that the schemas pass."""
    return [problem for each in objects(text) for pod in pods(each) for problem in _of_pod(pod)]


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    volumes = [each["name"] for each in pod.get("volumes") or []]
    containers = [*(pod.get("initContainers") or []), *pod["containers"]]
    names = [each["name"] for each in containers]
    yield from (f"{name}: twice" for each in (volumes, names) for name in set(each) if each.count(name) > 1)
    yield from (f"{name}: not a name" for name in (*volumes, *names) if not _NAME.fullmatch(name))
    yield from (f"{each['name']}: not one source" for each in pod.get("volumes") or [] if len(each) != 2)
    for container in containers:
        mounts = container.get("volumeMounts") or []
        paths = [each["mountPath"].rstrip("/") for each in mounts]
        variables = [each["name"] for each in container.get("env") or []]
        yield from (f"{path}: mounted twice" for path in set(paths) if paths.count(path) > 1)
        yield from (f"{each['name']}: no such volume" for each in mounts if each["name"] not in volumes)
        yield from (f"{each}: set twice" for each in set(variables) if variables.count(each) > 1)
        yield from (f"{each}: not a variable" for each in variables if not _VARIABLE.fullmatch(each))
        for mount in mounts:
            part = mount.get("subPath", "")
            if part.startswith("/") or ".." in part.split("/") or {"subPath", "subPathExpr"} <= mount.keys():
                yield f"{mount}: not a part of its volume"
            for variable in re.findall(r"\$\(([^)]*)\)", mount.get("subPathExpr", "")):
                if variable not in variables:
                    yield f"{variable}: not set"


def differences(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The paths at which two documents differ, with both values; None for an item or a key that is missing."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from differences(before.get(key), after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list):
        rest = list(after)
        for each in before:
            same = next((other for other in rest if _alike(each, other)), None)
            if same is not None:
                rest.remove(same)
            yield from differences(each, same, f"{path}[]")
        yield from ((f"{path}[]", None, each) for each in rest)
    elif before != after or type(before) is not type(after):
        yield path, before, after


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict) and "name" in one:
        return bool(one["name"] == other.get("name"))
    return isinstance(one, dict) == isinstance(other, dict) if isinstance(one, dict | list) else bool(one == other)
