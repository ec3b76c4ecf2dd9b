from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

PROGRAM = """
import json, sys
from lamella.layers.attaching import oras_client
loaded = "rfc3987_syntax" in sys.modules
import jsonschema
checkers = jsonschema.FormatChecker.checkers
print(json.dumps([loaded, "iri" in checkers, oras_client.oras.oci.jsonschema is jsonschema]))
"""


@pytest.mark.slow
def test_oras_loads_no_grammar_of_addresses_and_later_imports_of_jsonschema_have_it() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    is_installed = find_spec("rfc3987_syntax") is not None
    assert json.loads(done.stdout) == [False, is_installed, False]
