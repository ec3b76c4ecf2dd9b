"""The page of a comparison in a real browser, on a phone's width, in light and dark and in print."""

from __future__ import annotations

import html
import json
import re
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from lamella.comparison import write_report
from lamella.comparison.report.colours import DARK, LIGHT
from support.comparisons import comparison
from support.engines import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.engine]
HOST = "http://report.test"
# Another page of the same origin measures the report in a frame: the report itself allows no script.
_MEASURE = """<!doctype html><iframe src="index.html" width="WIDTH" height="900" style="border:0"></iframe><pre></pre><script>
document.querySelector("iframe").addEventListener("load", ({target}) => {
  const page = target.contentDocument, width = page.documentElement.clientWidth;
  const outside = [...page.querySelectorAll("body *")].filter(each =>
    !each.closest(".wide, pre, svg, .skip") && each.getBoundingClientRect().right > width + 1).map(each => each.outerHTML.slice(0, 80));
  const texts = [...page.querySelectorAll("svg text")].map(each => each.getBoundingClientRect().height);
  const cut = [...page.querySelectorAll("svg")].filter(svg => [...svg.querySelectorAll("text")].some(each =>
    each.getBoundingClientRect().right > svg.getBoundingClientRect().right + 1)).length;
  document.querySelector("pre").textContent = JSON.stringify({
    width, scroll: page.documentElement.scrollWidth, outside, smallest: Math.min(...texts), charts: page.querySelectorAll("svg").length, cut,
    paper: getComputedStyle(page.body).backgroundColor, ink: getComputedStyle(page.querySelector("svg text:last-of-type")).fill,
    small: [...page.querySelectorAll("p, td, th, dd, dt")].filter(each => parseFloat(getComputedStyle(each).fontSize) < 12).length,
  });
});
</script>"""


@contextmanager
def proxy(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A proxy that answers for every host with the files of `folder`, and the list of requests."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            name, _, width = self.path.removeprefix(f"{HOST}/").partition("?")
            found = folder / name
            body = (
                _MEASURE.replace("WIDTH", width).encode()
                if name == "measure.html"
                else found.read_bytes()
                if found.is_file()
                else b""
            )
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report."""
    found = tmp_path_factory.mktemp("report")
    write_report(comparison(), found)
    return found


def browse(folder: Path, page: str, *flags: str) -> tuple[str, list[str]]:
    """The document of a page after its scripts, and every request of the browser."""
    program = need("chromium-headless-shell")
    with proxy(folder) as (address, asked):
        done = subprocess.run(
            [
                program, "--no-sandbox", "--disable-gpu", "--disable-background-networking", f"--proxy-server={address}",
                f"--user-data-dir={folder.parent / 'browser'}", "--virtual-time-budget=10000", "--window-size=1400,1000",
                *flags, f"{HOST}/{page}",
            ],
            check=True, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    return done.stdout, asked


def measured(folder: Path, width: int, *flags: str) -> dict[str, Any]:
    """Sizes and colours of the page in a window of `width` pixels."""
    text, _ = browse(folder, f"measure.html?{width}", "--dump-dom", *flags)
    found = re.search(r"<pre>(\{.*?\})</pre>", text, re.DOTALL)
    assert found, text[-2000:]
    value: dict[str, Any] = json.loads(html.unescape(found[1]))
    return value


def rgb(colour: str) -> str:
    """A colour as browsers write it."""
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


def test_the_page_asks_for_nothing_but_itself(folder: Path) -> None:
    text, asked = browse(folder, "index.html", "--dump-dom")
    assert "Everything new" in text
    assert asked == [f"{HOST}/index.html"]


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_window_and_no_text_is_too_small(folder: Path, width: int) -> None:
    found = measured(folder, width)
    assert found["scroll"] <= found["width"] <= width
    assert found["outside"] == []
    assert (found["cut"], found["charts"]) == (0, 24)
    assert found["small"] == 0
    assert found["smallest"] >= 8


@pytest.mark.parametrize(("scheme", "colours"), [(1, LIGHT), (0, DARK)], ids=["light", "dark"])
def test_the_page_and_its_charts_follow_the_reader_s_light_or_dark(
    folder: Path, scheme: int, colours: dict[str, str]
) -> None:
    found = measured(folder, 1280, f"--blink-settings=preferredColorScheme={scheme}")
    assert found["paper"] == rgb(colours["paper"])
    assert found["ink"] in {rgb(colours["ink"]), rgb(colours["muted"])}


def test_the_page_prints(folder: Path, tmp_path: Path) -> None:
    browse(folder, "index.html", f"--print-to-pdf={tmp_path / 'page.pdf'}", "--blink-settings=preferredColorScheme=0")
    printed = (tmp_path / "page.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type /Page\b", printed)) <= 12
