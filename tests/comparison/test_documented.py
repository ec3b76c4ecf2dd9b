"""The page that shows real runs: its tables are those of the raw data that is kept beside it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.documented import CHARTS, KEPT, NOTHING, PAGE, filled, keep, markdown
from lamella.comparison import digits, read, summarize
from support.comparisons import comparison

if TYPE_CHECKING:
    from pathlib import Path

MARKS = "# Title\n\n<!-- result venv: by make comparison-page -->\nold\n<!-- end of result -->\n\nText.\n"


def test_the_tables_of_the_page_are_those_of_its_raw_data() -> None:
    assert PAGE.read_text() == filled(PAGE.read_text(), KEPT)


def test_every_result_that_is_kept_is_on_the_page_with_its_charts() -> None:
    for folder in KEPT.iterdir() if KEPT.exists() else ():
        assert f"<!-- result {folder.name}: by make comparison-page -->" in PAGE.read_text()
        assert {path.name for path in folder.iterdir()} == {"result.json", *CHARTS}
        for story in summarize(read(json.loads((folder / "result.json").read_text()))):
            for row in story.rows:
                if row.seconds:
                    assert f">{digits(row.seconds.median)} s<" in (folder / "seconds.svg").read_text()


def test_the_costs_in_the_readme_are_those_of_the_kept_run() -> None:
    rows = re.findall(
        r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$",
        (PAGE.parents[1] / "README.md").read_text(),
        re.MULTILINE,
    )
    stories = {
        each.story.title.lower(): each
        for each in summarize(read(json.loads((KEPT / "venv" / "result.json").read_text())))
    }
    assert {title for title, *_ in rows} == set(stories)
    for title, *numbers in rows:
        for workflow, number in zip(("lamella", "docker-uv", "uv-warm"), numbers, strict=True):
            row = stories[title].row(workflow)
            assert row
            assert row.seconds
            decimals = len(number.partition(".")[2])
            assert float(number) == round(row.seconds.median, decimals)


@pytest.mark.slow
def test_a_result_fills_its_marks_and_leaves_the_rest_of_the_page_alone(tmp_path: Path) -> None:
    keep("venv", comparison(), tmp_path)
    text = filled(MARKS, tmp_path)
    assert text.startswith("# Title\n\n<!-- result venv")
    assert text.endswith("<!-- end of result -->\n\nText.\n")
    assert "old" not in text
    assert "| Lamella | 48.6 | 1.70 | **2.43** | **5.83** | **2.19** | **7.78** | 10.7 | 25.3 |" in text
    assert "![Seconds of each story through each workflow, by step](comparison/venv/seconds.svg)" in text
    assert "- One small package upgraded: idna, 0.3 MB, in another version." in text
    assert "- A second environment that shares 90 %, Docker, COPY: 1 of 3: docker build: exit code 1" in text
    assert "- conda-pack, tar.zst: conda-pack: not found; pip install conda-pack" in text
    assert filled(text, tmp_path) == text


def test_marks_without_a_result_state_it(tmp_path: Path) -> None:
    assert NOTHING in filled(MARKS, tmp_path)


def test_foreign_text_is_shown_on_the_page_as_it_is() -> None:
    found = comparison(rounds=1)
    text = markdown(
        replace(found, workflows=tuple(replace(each, title="a|b <img src=x> `c`") for each in found.workflows)), "venv"
    )
    assert r"a\|b \<img src=x\> \`c\`" in text
    assert not re.search(r"(?<!\\)<img", text)
