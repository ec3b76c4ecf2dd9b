"""The specification of dask-kubernetes' `KubeCluster`, with an environment in its pods."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from lamella.builder import inject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.builder import InjectOptions


def kube_cluster_spec(spec: Mapping[str, Any], options: InjectOptions) -> dict[str, Any]:
    """Return the DaskCluster `spec`, as `make_cluster_spec` makes it, with the environment in its scheduler and workers.

    For `KubeCluster(custom_cluster_spec=...)`. `spec` stays unchanged; one that has an environment gets the other instead.
    Raises `InvalidManifest`.
    """
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    text = StringIO()
    yaml.dump(dict(spec), text)
    found: dict[str, Any] = yaml.load(inject(text.getvalue(), options, name="spec").text)
    return found
