from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.builder.cache_folder import cache_folder

if TYPE_CHECKING:
    import pytest


def test_the_cache_folder_is_where_the_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMELLA_CACHE", "/a")
    assert cache_folder() == "/a"
    monkeypatch.delenv("LAMELLA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_folder() == "/b/lamella"
