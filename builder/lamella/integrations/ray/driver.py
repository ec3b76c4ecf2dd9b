"""A push from a driver, and the runtime environment that starts workers in it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lamella.builder import Environment, LayerCache, PushOptions, ScanOptions, push, scan
from lamella.integrations.ray.field import FIELD, run_command
from lamella.integrations.ray.versions import check_versions
from lamella.layers import Reference, Trust

if TYPE_CHECKING:
    from lamella.layers import Progress


def runtime_env(
    reference: str,
    environment: Environment | str | None = None,
    options: PushOptions = PushOptions(),
    *,
    scan_options: ScanOptions = ScanOptions(working_directory=True),
    trust: Trust = Trust(),
    cache: LayerCache | None = None,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Push an environment and return the `runtime_env` that starts Ray's workers in it, pinned by digest.

    The arguments are those of `lamella.builder.push`; the default is the running interpreter's environment with the
    working directory's code. The result also works on nodes without the plugin, whose workers then pull when they start,
    by the program `lamella` on PATH. Raises `Unsupported`, before anything is pushed, unless the environment has the Ray
    and the Python minor version of this process, and what `push` raises.
    """
    if not isinstance(environment, Environment):
        environment = scan(environment, replace(scan_options, image_prefix=options.image_prefix), progress=progress)
    check_versions(
        environment.prefix,
        environment.interpreter.version,
        {package.name: package.version for package in environment.packages},
        "this process",
    )
    pushed = push(reference, environment, options, trust=trust, cache=cache, progress=progress)
    parsed = Reference.parse(pushed.reference).absolute()
    return {FIELD: str(parsed), "py_executable": run_command("lamella", str(parsed))}
