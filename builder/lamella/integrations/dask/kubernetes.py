"""The specification of dask-kubernetes' `KubeCluster`, with an environment in its pods."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from lamella.builder import inject, resolve_options
from lamella.layers import Trust

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.builder import InjectOptions


def kube_cluster_spec(spec: Mapping[str, Any], options: InjectOptions, *, trust: Trust = Trust()) -> dict[str, Any]:
    """Return the DaskCluster `spec`, as `make_cluster_spec` makes it, with the environment in its scheduler and workers.

    For `KubeCluster(custom_cluster_spec=...)`. `spec` stays unchanged; one that has an environment gets the other instead.
    Asks the registry for the digest, image prefix, architectures and glibc, unless `options` has its architectures. Raises
    `InvalidManifest`, and what `lamella.builder.resolve_options` raises.
    """
    from ruamel.yaml import YAML

    if not options.architectures:
        options = resolve_options(options, trust=trust)
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    text = StringIO()
    yaml.dump(dict(spec), text)
    found: dict[str, Any] = yaml.load(inject(text.getvalue(), options, name="spec").text)
    return found
