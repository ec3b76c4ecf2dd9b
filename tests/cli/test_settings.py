"""Order of a setting's sources: flag, variable, project, default."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

import pytest

from lamella.cli.errors import UsageError
from lamella.cli.settings import (
    BASE,
    COMPRESSION,
    EVERY,
    IMAGE_PREFIX,
    INSECURE,
    MAX_LAYERS,
    REGISTRY,
    Setting,
    fill,
    trust_of,
)
from lamella.layers.settings.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SETTINGS = (IMAGE_PREFIX, INSECURE, MAX_LAYERS, COMPRESSION, BASE)


def filled(folder: Path, *flags: str, settings: Sequence[Setting] = SETTINGS) -> argparse.Namespace:
    """Return the arguments of a command line of `flags`, in `folder`."""
    parser = argparse.ArgumentParser()
    for setting in settings:
        setting.add_to(parser)
    arguments = parser.parse_args(flags)
    fill(arguments, settings, str(folder))
    return arguments


def project(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text)


def test_a_flag_overrides_a_variable_overrides_the_project_overrides_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path, "[tool.lamella]\nimage-prefix = '/project'\nmax-layers = 7\ncompression = 'gzip'\n")
    monkeypatch.setenv("LAMELLA_IMAGE_PREFIX", "/variable")
    monkeypatch.setenv("LAMELLA_MAX_LAYERS", "8")

    arguments = filled(tmp_path, "--image-prefix", "/flag")

    assert arguments.image_prefix == "/flag"
    assert arguments.max_layers == 8
    assert arguments.compression == "gzip"
    assert arguments.insecure is False
    assert arguments.base is None


def test_only_the_nearest_project_counts(tmp_path: Path) -> None:
    project(tmp_path, "[tool.lamella]\nimage-prefix = '/outer'\n")
    inner = tmp_path / "inner"
    (inner / "deep").mkdir(parents=True)
    assert filled(inner / "deep").image_prefix == "/outer"
    project(inner, "[project]\nname = 'lamella-user'\n")
    assert filled(inner / "deep").image_prefix == "/opt/env"


@pytest.mark.parametrize(("text", "value"), [("1", True), ("yes", True), ("0", False), ("", False), ("False", False)])
def test_a_switch_accepts_the_usual_words_for_true_and_false(
    text: str, value: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMELLA_INSECURE", text)
    assert filled(tmp_path).insecure is value


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("LAMELLA_INSECURE", "per haps", "LAMELLA_INSECURE 'per haps': not a boolean; use true or false"),
        ("LAMELLA_INSECURE", "perhaps", "LAMELLA_INSECURE perhaps: not a boolean; use true or false"),
        ("LAMELLA_MAX_LAYERS", "many", "LAMELLA_MAX_LAYERS many: not a whole number"),
        ("LAMELLA_COMPRESSION", "lzma", "LAMELLA_COMPRESSION lzma: invalid choice; use zstd or gzip"),
    ],
)
def test_an_invalid_variable_is_reported_with_the_valid_values(
    variable: str, text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(UsageError) as caught:
        filled(tmp_path)
    assert str(caught.value) == message


def test_an_invalid_number_in_a_flag_is_reported_as_in_a_variable(tmp_path: Path) -> None:
    assert filled(tmp_path, "--max-layers", "7").max_layers == 7
    with pytest.raises(UsageError, match=r"^--max-layers many: not a whole number$"):
        filled(tmp_path, "--max-layers", "many")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.lamella]\nimage_prefix = '/x'\n", "{path}: unknown key 'image_prefix' in [tool.lamella]; use base, "),
        ("[tool.lamella]\nmax-layers = 'x'\n", "{path}: max-layers x: not a whole number"),
        ("[tool.lamella]\nbase = 3\n", "{path}: base 3: not a string"),
        ("[tool]\nlamella = 3\n", "{path}: tool.lamella is not a table; write [tool.lamella]"),
        ("[tool.lamella\n", "{path}: invalid TOML: "),
    ],
)
def test_an_invalid_project_setting_is_reported_with_its_file(text: str, message: str, tmp_path: Path) -> None:
    project(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        filled(tmp_path)
    assert message.format(path=tmp_path / "pyproject.toml") in str(caught.value)


def test_a_project_file_without_lamella_is_not_parsed(tmp_path: Path) -> None:
    project(tmp_path, "this is not TOML")
    assert filled(tmp_path).image_prefix == "/opt/env"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], Trust("variable.pub", "variable.pem", "hosts")),
        (["--ca-file", "flag.pem", "--insecure"], Trust("variable.pub", "flag.pem", "hosts", insecure=True)),
        (["--ca-file", ""], Trust("variable.pub", "variable.pem", "hosts")),
    ],
)
def test_trust_comes_from_flags_then_from_variables_even_of_flags_that_the_verb_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], expected: Trust
) -> None:
    monkeypatch.setenv("LAMELLA_CA_FILE", "variable.pem")
    monkeypatch.setenv("LAMELLA_HOSTS_DIR", "hosts")
    monkeypatch.setenv("LAMELLA_REQUIRE_SIGNATURE", "variable.pub")
    assert trust_of(filled(tmp_path, *flags, settings=REGISTRY)) == expected
    assert os.environ["LAMELLA_CA_FILE"] == "variable.pem"


def test_the_flag_the_variable_and_the_key_of_a_setting_have_one_name() -> None:
    for setting in EVERY:
        assert setting.name == setting.name.lower()
        assert setting.variable == "LAMELLA_" + setting.name.upper().replace("-", "_")
    assert len({setting.name for setting in EVERY}) == len(EVERY)
