"""What the registry has of an environment to inject: its digest, image prefix, needs and architectures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lamella.layers.published.inspection import inspect
from lamella.layers.settings.trust import Trust

if TYPE_CHECKING:
    from lamella.builder.kubernetes.options import InjectOptions


def resolve_options(options: InjectOptions, *, trust: Trust = Trust()) -> InjectOptions:
    """Return `options` with the digest, image prefix, architectures and glibc that the registry has for its reference.

    Raises `InvalidManifest` if the image prefix contradicts the options, and what `lamella.layers.inspect` raises.
    """
    inspected = inspect(options.reference, compare=False, trust=trust)
    first = inspected.environments[0]
    return replace(
        options,
        reference=inspected.reference,
        prefix=first.prefix,
        glibc=first.glibc,
        architectures=tuple(sorted({each.platform.architecture for each in inspected.environments})),
    )
