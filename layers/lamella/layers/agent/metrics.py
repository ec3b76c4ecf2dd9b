"""Counters of an agent, and their text for Prometheus. Names follow Prometheus' naming guide.

Sources: prometheus.io/docs/practices/naming, prometheus.io/docs/instrumenting/exposition_formats (text format 0.0.4).
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "lamella_agent_"
_BUCKETS = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0)
"""Seconds: a mount of layers that are there, a small change, a small pull, and large ones."""

COUNTERS = {
    "requests_total": "Requests for an environment, by HTTP status.",
    "errors_total": "Failures of requests, of pulls ahead and of freeing, by code.",
    "checks_total": "Checks of the tags to keep pulled, and of free space.",
    "pulls_total": "Pulls that downloaded at least one layer.",
    "downloaded_bytes_total": "Bytes of layers that were downloaded, compressed.",
    "downloaded_layers_total": "Layers that were downloaded.",
    "freed_bytes_total": "Bytes of layers and documents that were freed.",
    "unmounts_total": "Environments that were unmounted to free their layers.",
}
GAUGES = {
    "environments_mounted": "Environments that are mounted.",
    "environments_in_use": "Mounted environments that a pod uses.",
    "store_layers": "Layers in the store.",
    "store_bytes": "Bytes of the layers in the store, unpacked.",
    "filesystem_free_bytes": "Bytes free on the store's file system.",
    "filesystem_size_bytes": "Bytes of the store's file system.",
    "start_time_seconds": "Start of the agent, in seconds since 1970.",
}
SECONDS = "request_duration_seconds"


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a metric."""

    name: str
    value: float
    labels: Mapping[str, str]


class Counts:
    """Counters that many threads add to. Each is there from the start, so that a rate has a first value."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        labelled = {"requests_total": ("status", "200"), "errors_total": ("code", "failed")}
        self._values: dict[tuple[str, tuple[str, str] | None], float] = {
            (name, labelled.get(name)): 0.0 for name in COUNTERS
        }
        self._buckets = [0] * len(_BUCKETS)
        self._sum, self._count = 0.0, 0
        self.started = time.time()

    def add(self, name: str, amount: float = 1, *, label: tuple[str, str] | None = None) -> None:
        """Add to the counter `name`, a key of `COUNTERS`."""
        with self._lock:
            self._values[name, label] = self._values.get((name, label), 0.0) + amount

    def value(self, name: str) -> float:
        """Return the sum of a counter over its labels."""
        with self._lock:
            return sum(value for (each, _), value in self._values.items() if each == name)

    def observe(self, seconds: float) -> None:
        """Add the duration of one request."""
        with self._lock:
            self._sum, self._count = self._sum + seconds, self._count + 1
            for at, bound in enumerate(_BUCKETS):
                self._buckets[at] += seconds <= bound

    def text(self, gauges: Mapping[str, float], version: str) -> str:
        """Return every metric, with the `gauges` of this moment by their keys of `GAUGES`."""
        with self._lock:
            values = dict(self._values)
            buckets, total, count = list(self._buckets), self._sum, self._count
        lines: list[str] = []
        for name, about in COUNTERS.items():
            samples = [
                Sample(name, value, dict([label] if label else []))
                for (each, label), value in sorted(values.items(), key=str)
                if each == name
            ]
            lines += _family(name, "counter", about, samples)
        bounds = [(f"{bound:g}", amount) for bound, amount in zip(_BUCKETS, buckets, strict=True)]
        lines += _family(
            SECONDS,
            "histogram",
            "Duration of requests for an environment.",
            [
                *(Sample(f"{SECONDS}_bucket", amount, {"le": bound}) for bound, amount in [*bounds, ("+Inf", count)]),
                Sample(f"{SECONDS}_sum", total, {}),
                Sample(f"{SECONDS}_count", count, {}),
            ],
        )
        for name, about in GAUGES.items():
            if name in gauges:
                lines += _family(name, "gauge", about, [Sample(name, gauges[name], {})])
        lines += _family("build_info", "gauge", "The agent's version.", [Sample("build_info", 1, {"version": version})])
        return "".join(f"{line}\n" for line in lines)


def _family(name: str, kind: str, about: str, samples: Iterable[Sample]) -> list[str]:
    head = [f"# HELP {_PREFIX}{name} {_escaped(about)}", f"# TYPE {_PREFIX}{name} {kind}"]
    return [*head, *(f"{_PREFIX}{each.name}{_labels(each.labels)} {_number(each.value)}" for each in samples)]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    quoted = (f'{name}="{_escaped(value, quotes=True)}"' for name, value in labels.items())
    return f"{{{','.join(quoted)}}}"


def _escaped(text: str, *, quotes: bool = False) -> str:
    escaped = text.replace("\\", r"\\").replace("\n", r"\n")
    return escaped.replace('"', r"\"") if quotes else escaped


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
