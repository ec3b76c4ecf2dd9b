"""The text of the metrics, read by a strict parser of the format."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lamella.layers.agent.metrics import COUNTERS, GAUGES, Counts

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SAMPLE = re.compile(rf'({_NAME})(?:\{{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*)\}})? (\S+)')
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|Inf)|NaN")


def families(text: str) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Each family's name, type and samples; fails on all that the text format 0.0.4 does not allow, or the naming guide."""
    assert text.endswith("\n")
    name, kind, samples, seen = "", "", dict[str, float](), set[str]()
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if line.startswith("# HELP "):
            if name:
                yield name, kind, samples
            name, samples = line.split(" ", 3)[2], {}
            assert name not in seen, "one family twice"
            seen.add(name)
            assert lines[at + 1].startswith(f"# TYPE {name} ")
            assert line.split(" ", 3)[3].endswith(".")
        elif line.startswith("# TYPE "):
            kind = line.split(" ")[3]
            assert kind in {"counter", "gauge", "histogram"}
        else:
            match = _SAMPLE.fullmatch(line)
            assert match, line
            assert _NUMBER.fullmatch(match[3]), line
            suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            assert match[1] in {name + suffix for suffix in suffixes}, line
            key = line.rpartition(" ")[0]
            assert key not in samples, "one sample twice"
            samples[key] = float(match[3])
    yield name, kind, samples


def test_an_agent_that_did_nothing_has_every_metric() -> None:
    found = {name: kind for name, kind, _ in families(Counts().text(dict.fromkeys(GAUGES, 0.0), "1.0"))}
    assert {name for name, kind in found.items() if kind == "counter"} == {f"lamella_agent_{name}" for name in COUNTERS}
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in found.items())
    assert all(name.startswith("lamella_agent_") for name in found)


def test_counters_are_added_by_label() -> None:
    counts = Counts()
    counts.add("requests_total", label=("status", "200"))
    counts.add("requests_total", label=("status", "200"))
    counts.add("requests_total", label=("status", "404"))
    counts.add("downloaded_bytes_total", 10**13 + 1)
    samples = {name: values for name, _, values in families(counts.text({}, "1.0"))}
    assert samples["lamella_agent_requests_total"] == {
        'lamella_agent_requests_total{status="200"}': 2,
        'lamella_agent_requests_total{status="404"}': 1,
    }
    assert samples["lamella_agent_downloaded_bytes_total"] == {"lamella_agent_downloaded_bytes_total": 10**13 + 1}
    assert counts.value("requests_total") == 3


def test_the_histogram_s_buckets_are_cumulative_and_end_with_all() -> None:
    counts = Counts()
    for duration in (0.005, 0.5, 5000.0):
        counts.observe(duration)
    (samples,) = (values for _, kind, values in families(counts.text({}, "1.0")) if kind == "histogram")
    buckets = [value for key, value in samples.items() if "_bucket" in key]
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[-2], buckets[-1]) == (1, 2, 3)
    assert samples["lamella_agent_request_duration_seconds_count"] == 3


def test_a_label_of_any_text_is_escaped() -> None:
    text = Counts().text({}, 'a"b\\c\nd')
    (info,) = (values for name, _, values in families(text) if name == "lamella_agent_build_info")
    assert list(info) == [r'lamella_agent_build_info{version="a\"b\\c\nd"}']
