"""Plain HTTP is for the registry that a push goes to, not for the one that its base comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.layers.errors import LayersError
from lamella.layers.settings.trust import Trust
from support.packages import SITE, environment, package
from support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_insecure_does_not_ask_the_registry_of_the_base_in_the_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = environment(tmp_path / "env", package(tmp_path / "env", "alpha", {f"{SITE}/alpha.py": "value = 1\n"}))
    with RegistrySimulator().serving() as registry, RegistrySimulator().serving() as between:
        # This proxy receives every request in the clear.
        monkeypatch.setenv("http_proxy", f"http://{between.host}")
        monkeypatch.setenv("https_proxy", "http://localhost:1")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(LayersError, match=r"registry\.invalid: cannot connect"):
            push(
                f"{registry.host}/team/envs:v1",
                env,
                PushOptions(base="registry.invalid/team/base:v1"),
                trust=Trust(insecure=True),
                cache=LayerCache(str(tmp_path / "cache")),
            )
        assert not between.requests
