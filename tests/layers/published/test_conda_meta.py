from __future__ import annotations

import json

from lamella.layers.published.conda_meta import HISTORY, completed

RECORD = b'{"build":"0","files":["a"],"name":"click","version":"8.1"}\n'
ORIGIN = {"channel": "https://example.com/main", "fn": "click-8.1-0.conda", "subdir": "linux-64", "url": "https://x/y"}


def test_a_record_gets_the_fields_of_its_origin() -> None:
    origins = json.dumps({"records": {"conda-meta/click-8.1-0.json": ORIGIN}, "requested": ["click >=8"]}).encode()

    made = completed({"conda-meta/click-8.1-0.json": RECORD}, origins)

    assert json.loads(made["conda-meta/click-8.1-0.json"]) == json.loads(RECORD) | ORIGIN
    assert made[HISTORY].decode().splitlines() == [
        "==> 1980-01-02 00:00:00 <==",
        "# cmd: lamella",
        "+https://example.com/main/linux-64::click-8.1-0",
        '# update specs: ["click >=8"]',
    ]


def test_damaged_origins_leave_the_records_as_they_are() -> None:
    for origins in (b"", b"[]", b'{"records": 1}', b"\xff", b"[" * 100_000):
        assert completed({"conda-meta/click-8.1-0.json": RECORD}, origins) == {}


def test_only_records_are_completed() -> None:
    origins = json.dumps({"records": {"bin/python": ORIGIN, "conda-meta/../x.json": ORIGIN}}).encode()

    assert set(completed({"bin/python": b"#!", "conda-meta/../x.json": RECORD}, origins)) == {HISTORY}
