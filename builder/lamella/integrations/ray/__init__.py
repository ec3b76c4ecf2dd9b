"""Ray's workers in an environment of Lamella: push it from the driver, pull it on each node before the workers start.

    ray.init("auto", runtime_env=lamella.integrations.ray.runtime_env("registry.example.com/team/envs:v1"))

Each node starts Ray with RAY_RUNTIME_ENV_PLUGINS='[{"class": "lamella.integrations.ray.Plugin"}]'. Requires Ray 2.40 or
newer, in the cluster and in the environment the same version.
"""

from __future__ import annotations

from lamella.integrations.ray.driver import runtime_env
from lamella.integrations.ray.plugin import Plugin

__all__ = ["Plugin", "runtime_env"]
