from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lamella.comparison import Comparison, ComparisonError, check_report, document, read, summarize, write_report
from lamella.comparison.report.colours import DARK, LIGHT, STEPS
from lamella.comparison.report.write import CHARTS, FILES
from support.comparisons import comparison, run

pytestmark = pytest.mark.slow
HOSTILE = "<script>alert('1')</script>\"&\x1b[31m\u202e$x^2$ {{ 7*7 }}"


class Elements(HTMLParser):
    """Every element of a page, with its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def written(of: Comparison, folder: Path) -> dict[str, str]:
    """Every file of a report."""
    assert write_report(of, folder) == folder / "index.html"
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return written(comparison(), tmp_path_factory.mktemp("report") / "new/folder")


def test_a_report_is_a_page_its_charts_and_the_raw_data(report: dict[str, str]) -> None:
    assert sorted(report) == sorted(FILES)
    assert read(json.loads(report["result.json"])) == comparison()


def test_a_page_refers_to_the_files_beside_it_and_to_documentation_alone(report: dict[str, str]) -> None:
    elements = Elements(report["index.html"])
    addresses = {value for _, attrs in elements.tags for name, value in attrs.items() if name in {"href", "src"}}
    outside = {address for address in addresses if address and ":" in address}
    assert outside - {"data:,"} <= {workflow.source for workflow in comparison().workflows}
    anchors = {attrs["id"] for _, attrs in elements.tags if "id" in attrs}
    assert {address for address in addresses - outside if address} <= {
        *FILES,
        *(f"#{anchor}" for anchor in anchors),
    }
    assert not {tag for tag, _ in elements.tags} & {"script", "iframe", "object", "img", "form"}
    assert "url(" not in report["index.html"]
    assert "@import" not in report["index.html"]


@pytest.mark.parametrize(("took", "shown"), [(16.4, "in 16.4 s"), (89.0, "in 1 min 29 s"), (5400.0, "in 90 minutes")])
def test_the_time_of_a_short_comparison_is_not_rounded_away(tmp_path: Path, took: float, shown: str) -> None:
    page = written(replace(comparison(), seconds=took), tmp_path / "report")["index.html"]
    assert shown in Elements(page).text


def test_every_id_of_a_page_is_there_once(report: dict[str, str]) -> None:
    found = [attrs["id"] for _, attrs in Elements(report["index.html"]).tags if "id" in attrs]
    assert len(found) == len(set(found)) > 8


def test_a_page_has_every_number_as_text_and_every_run_in_a_table(report: dict[str, str]) -> None:
    text = Elements(report["index.html"]).text
    for story in summarize(comparison()):
        for row in story.rows:
            assert row.seconds
            assert f"{row.seconds.median:.3g}"[:3] in text
    rows = re.findall(r"<tr>", report["index.html"].partition('class="runs"')[2])
    assert len(rows) == 1 + len(comparison().runs)
    for expected in (
        "Example Processor 9000", "kernel 6.1.0-28-amd64", "1000 Mbit/s and 2 ms each way", "docker-registry 2.8.1",
        "0.20 before, 1.60 after", "conda-pack: not found; pip install conda-pack", "buildkit 0.13.1", "cold",
        "failed: docker build: exit code 1: no space left on device",
        "lamella compare /home/ada/project/.venv --rounds 3 --report comparison",
    ):  # fmt: skip
        assert expected in text


def test_every_chart_has_a_title_and_its_numbers_in_words_for_a_reader_who_does_not_see_it(
    report: dict[str, str],
) -> None:
    charts = [attrs for tag, attrs in Elements(report["index.html"]).tags if tag == "svg"]
    assert len(charts) == 3 * len(comparison().stories)
    assert all(attrs["role"] == "img" for attrs in charts)
    label = charts[0]["aria-label"]
    assert label is not None
    assert label.startswith("Seconds from the change to the import on the node: Everything new. Lamella: 48.6 s; ")
    for name in CHARTS:
        root = ElementTree.fromstring(report[name])
        assert root[0].tag == "{http://www.w3.org/2000/svg}title"


def test_tables_that_scroll_can_be_reached_by_the_keyboard_and_have_headings(report: dict[str, str]) -> None:
    tags = Elements(report["index.html"]).tags
    scrolling = [attrs for _, attrs in tags if attrs.get("class") == "wide"]
    assert scrolling
    for attrs in scrolling:
        assert attrs["tabindex"] == "0"
        assert attrs.get("aria-label") or attrs.get("aria-labelledby")
    assert all("scope" in attrs for tag, attrs in tags if tag == "th")


def test_the_same_comparison_gives_the_same_bytes_in_another_process(tmp_path: Path, report: dict[str, str]) -> None:
    program = (
        "from lamella.comparison import write_report; from support.comparisons import comparison; import sys;"
        "write_report(comparison(), sys.argv[1])"
    )
    paths = ["layers", "builder", "cli", "tests"]
    root = Path(__file__).parents[3]
    subprocess.run(
        [sys.executable, "-c", program, tmp_path / "again"],
        check=True,
        env={
            "PYTHONPATH": ":".join(str(root / name) for name in paths),
            "HOME": str(tmp_path),
            "PYTHONHASHSEED": "7",
            "TZ": "Asia/Tokyo",
            "LC_ALL": "C",
        },
    )
    assert {path.name: path.read_text() for path in (tmp_path / "again").iterdir()} == report


def test_a_user_s_settings_of_matplotlib_change_nothing(
    tmp_path: Path, report: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib as mpl

    monkeypatch.setitem(mpl.rcParams, "font.size", 40)
    monkeypatch.setitem(mpl.rcParams, "axes.facecolor", "red")
    assert written(comparison(), tmp_path / "again") == report


def test_foreign_text_is_shown_and_never_run(tmp_path: Path) -> None:
    found = comparison(rounds=1)
    hostile = replace(
        found,
        command=HOSTILE,
        environment=replace(found.environment, prefix=HOSTILE, kind=HOSTILE),
        machine=replace(found.machine, system=HOSTILE, processor=HOSTILE),
        registry=replace(found.registry, program=HOSTILE),
        workflows=tuple(
            replace(
                each,
                title=HOSTILE,
                steps=HOSTILE,
                programs={HOSTILE: HOSTILE},
                source="javascript:alert(1)",
                missing=None if each.available else HOSTILE,
            )
            for each in found.workflows
        ),
        stories=tuple(replace(each, title=HOSTILE, description=HOSTILE) for each in found.stories),
        runs=tuple(
            replace(
                each,
                steps=tuple(replace(step, name=HOSTILE) for step in each.steps),
                failed=HOSTILE if each.story == "edit" else None,
            )
            for each in found.runs
        ),
    )
    files = written(hostile, tmp_path / "report")
    page = files.pop("index.html")
    assert not {tag for tag, _ in Elements(page).tags} & {"script", "img"}
    assert not [
        value for _, attrs in Elements(page).tags for value in attrs.values() if value and "javascript" in value
    ]
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "{{ 7*7 }}" in page
    assert "<script>alert('1')</script>" in Elements(page).text
    for name in CHARTS:
        root = ElementTree.fromstring(files[name])
        assert not [element.tag for element in root.iter() if "script" in element.tag]
    # Not as a formula: the dollar signs stay.
    assert "$x^2$" in "".join(ElementTree.fromstring(files["seconds.svg"]).itertext())


def test_letters_that_no_font_here_has_reach_the_reader(tmp_path: Path) -> None:
    found = comparison(rounds=1)
    files = written(
        replace(found, workflows=tuple(replace(each, title="環境 📦") for each in found.workflows)), tmp_path / "report"
    )
    assert "環境" in files["seconds.svg"]
    assert "環境" in files["index.html"]


def test_a_comparison_without_a_run_that_succeeded_has_a_page(tmp_path: Path) -> None:
    broken = tuple(replace(each, failed="no engine", steps=()) for each in comparison(rounds=1).runs)
    page = written(replace(comparison(), runs=broken), tmp_path / "broken")["index.html"]
    assert "failed: no engine" in Elements(page).text
    files = written(replace(comparison(), runs=(), complete=False), tmp_path / "empty")
    assert sorted(files) == ["index.html", "result.json"]
    assert "No run had ended." in Elements(files["index.html"]).text


def test_the_disk_of_a_registry_that_the_user_named_is_not_counted(tmp_path: Path) -> None:
    given = replace(comparison(rounds=1), registry=replace(comparison().registry, given=True))
    text = Elements(written(given, tmp_path / "report")["index.html"]).text
    assert "named by the user; its disk is not counted" in text
    assert {row.registry_bytes for story in summarize(given) for row in story.rows} == {None}


def test_a_story_that_took_no_time_and_one_workflow_alone_are_drawn(tmp_path: Path) -> None:
    nothing = replace(run("lamella", "new"), seconds=0.0, steps=(), uploaded=0, downloaded=0, registry_bytes=0)
    page = written(replace(comparison(), runs=(nothing,)), tmp_path / "report")["index.html"]
    assert "Fastest: Lamella, 0.00 s." in Elements(page).text


def test_an_earlier_report_is_replaced_and_other_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    write_report(comparison(rounds=1), folder)
    written(comparison(rounds=2), folder)
    assert read(json.loads((folder / "result.json").read_text())).rounds == 2
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(ComparisonError, match=r"has other files, such as 'thesis.txt'; name an empty or a new folder"):
        check_report(folder)
    assert (folder / "thesis.txt").read_text() == "mine"


def test_a_file_or_a_dangling_link_is_not_a_folder_for_a_report(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link", "file/below"):
        with pytest.raises(ComparisonError, match=r"(file|link) is not a directory; name an empty or a new folder$"):
            check_report(tmp_path / name)


def test_a_check_makes_no_folder(tmp_path: Path) -> None:
    check_report(tmp_path / "a/b")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_names_the_extra() -> None:
    program = (
        "import sys\n"
        "sys.modules['jinja2'] = None\n"
        "from lamella.comparison import check_report\n"
        "try:\n    check_report('report')\nexcept Exception as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == (
        "--report report: the package jinja2 is missing; install Lamella with its extra: lamella[report]\n"
    )


def test_the_package_imports_neither_matplotlib_nor_jinja2_before_a_report_is_written() -> None:
    program = "import sys, lamella.comparison as c; c.write_report, c.summarize; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert not {"matplotlib", "jinja2", "numpy"} & set(loaded)


def luminance(colour: str) -> float:
    """Relative luminance. Source: WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_bars_have_the_contrast_that_wcag_asks_for(colours: dict[str, str]) -> None:
    def contrast(one: str, other: str) -> float:
        high, low = sorted((luminance(colours[one]), luminance(colours[other])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for background in ("paper", "card"):
        for text in ("ink", "muted", "link", "warn"):
            assert contrast(text, background) >= 4.5, (text, background)
    for bar in {*STEPS.values(), "other"}:
        assert contrast(bar, "paper") >= 3, bar


def test_light_and_dark_have_the_same_names() -> None:
    assert list(LIGHT) == list(DARK)
    assert document(comparison())["version"] == 1
