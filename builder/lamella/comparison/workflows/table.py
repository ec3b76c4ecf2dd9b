"""Every workflow, in the order of the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.comparison.errors import ComparisonError
from lamella.comparison.workflows import conda_pack, docker, uv
from lamella.comparison.workflows.lamella import Lamella
from lamella.comparison.workflows.ray_pip import RayPip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamella.comparison.workflows.workflow import Workflow

WORKFLOWS: tuple[Workflow, ...] = (
    Lamella(),
    docker.UV,
    docker.UV_ZSTD,
    docker.PIP,
    docker.COPY,
    docker.COPY_COMPILED,
    conda_pack.GZ,
    conda_pack.ZST,
    uv.COLD,
    uv.WARM,
    uv.WARM_UNCOMPILED,
    RayPip(),
)


def chosen(names: Sequence[str]) -> tuple[Workflow, ...]:
    """Return the workflows of these names in the order of the table; all of them for none.

    Raises:
        ComparisonError: a name that is not a workflow.
    """
    known = [each.name for each in WORKFLOWS]
    for name in names:
        if name not in known:
            raise ComparisonError(f"--workflow {name}: not a workflow; use {', '.join(known)}", code="invalid")
    return tuple(each for each in WORKFLOWS if not names or each.name in names)
