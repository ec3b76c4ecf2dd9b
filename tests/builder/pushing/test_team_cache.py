"""How long a repository's answers are believed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.team_cache import Answers, recall, remember

if TYPE_CHECKING:
    from pathlib import Path

HOUR = 3600


@pytest.mark.parametrize(("hours", "believed"), [(0, True), (23, True), (25, False), (24 * 365, False)])
def test_an_answer_is_believed_for_a_day(tmp_path: Path, hours: int, believed: bool) -> None:
    then = time.time() - hours * HOUR
    cache = LayerCache(str(tmp_path))
    answers = Answers({"sha256:" + "0" * 64: then}, {"v1@sha256:" + "1" * 64: then})
    remember(cache, "registry/team/envs", answers)
    assert recall(cache, "registry/team/envs") == (answers if believed else Answers())


def test_an_old_answer_goes_without_the_new_ones_beside_it(tmp_path: Path) -> None:
    now = time.time()
    cache = LayerCache(str(tmp_path))
    remember(cache, "registry/team/envs", Answers({"old": now - 25 * HOUR, "new": now}, {"old": now - 25 * HOUR}))
    assert recall(cache, "registry/team/envs") == Answers({"new": now})


def test_answers_of_one_repository_are_not_another_s(tmp_path: Path) -> None:
    cache = LayerCache(str(tmp_path))
    remember(cache, "registry/team/envs", Answers({"digest": time.time()}))
    assert recall(cache, "registry/team/other") == Answers()


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"digests": {}}', b'{"digests": {"a": "b"}, "tags": {}}'])
def test_a_damaged_note_is_ignored(tmp_path: Path, note: bytes) -> None:
    cache = LayerCache(str(tmp_path))
    cache.keep_note("answers registry/team/envs", note)
    assert recall(cache, "registry/team/envs") == Answers()
