"""The Makefile installs what the tests ask for, and says why."""

from __future__ import annotations

import re
from pathlib import Path

from support.engines import ENGINES

ROOT = Path(__file__).parent.parent


def packages() -> dict[str, str]:
    """The Debian packages that `make test` installs, each with its job."""
    found = re.search(r"^define PACKAGES\n(.*?)^endef$", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return {line.partition(" ")[0]: line.partition(" ")[2] for line in found[1].splitlines()}


def test_make_installs_every_engine_that_a_test_may_need() -> None:
    assert set(ENGINES.values()) - packages().keys() == set()


def test_every_installed_package_has_its_job_beside_it() -> None:
    assert [name for name, job in packages().items() if not job] == []
