"""Where an option's value comes from: the flag, then the environment, then the project, then the default."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

import pytest

from lamella.cli.settings import (
    BASE,
    COMPRESSION,
    EVERY,
    IMAGE_PREFIX,
    INSECURE,
    MAX_LAYERS,
    REGISTRY,
    UsageError,
    fill,
    trust_of,
)
from lamella.layers.trust import Trust

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = (IMAGE_PREFIX, INSECURE, MAX_LAYERS, COMPRESSION, BASE)


def filled(folder: Path, *flags: str) -> argparse.Namespace:
    """The arguments of a command line of `flags`, in `folder`."""
    parser = argparse.ArgumentParser()
    for setting in SETTINGS:
        setting.add_to(parser)
    arguments = parser.parse_args(flags)
    fill(arguments, SETTINGS, str(folder))
    return arguments


def project(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text)


def test_a_flag_goes_before_the_environment_and_that_before_the_project_and_that_before_the_default(
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


def test_the_nearest_project_counts_and_one_further_up_does_not(tmp_path: Path) -> None:
    project(tmp_path, "[tool.lamella]\nimage-prefix = '/outer'\n")
    inner = tmp_path / "inner"
    (inner / "deep").mkdir(parents=True)
    assert filled(inner / "deep").image_prefix == "/outer"
    project(inner, "[project]\nname = 'lamella-user'\n")
    assert filled(inner / "deep").image_prefix == "/opt/env"


@pytest.mark.parametrize(("text", "value"), [("1", True), ("yes", True), ("0", False), ("", False), ("False", False)])
def test_a_switch_is_on_and_off_by_the_words_people_use(
    text: str, value: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMELLA_INSECURE", text)
    assert filled(tmp_path).insecure is value


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("LAMELLA_INSECURE", "perhaps", "LAMELLA_INSECURE is 'perhaps': want true or false"),
        ("LAMELLA_MAX_LAYERS", "many", "LAMELLA_MAX_LAYERS is 'many': want a whole number"),
        ("LAMELLA_COMPRESSION", "lzma", "LAMELLA_COMPRESSION is 'lzma': want one of zstd, gzip"),
    ],
)
def test_a_variable_that_makes_no_sense_is_named_with_what_it_should_be(
    variable: str, text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(UsageError) as caught:
        filled(tmp_path)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.lamella]\nimage_prefix = '/x'\n", "has 'image_prefix': want one of base, "),
        ("[tool.lamella]\nmax-layers = 'x'\n", "max-layers in {path} is 'x': want a whole number"),
        ("[tool.lamella]\nbase = 3\n", "base in {path} is 3: want a string"),
        ("[tool]\nlamella = 3\n", "tool.lamella in {path} is not a table: write [tool.lamella]"),
        ("[tool.lamella\n", "{path} is not TOML: "),
    ],
)
def test_a_project_that_makes_no_sense_is_named_with_what_it_should_be(text: str, message: str, tmp_path: Path) -> None:
    project(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        filled(tmp_path)
    assert message.format(path=tmp_path / "pyproject.toml") in str(caught.value)


def test_a_project_file_of_others_is_not_even_parsed(tmp_path: Path) -> None:
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
def test_trust_is_made_of_flags_then_variables_also_of_settings_that_the_verb_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], expected: Trust
) -> None:
    monkeypatch.setenv("LAMELLA_CA_FILE", "variable.pem")
    monkeypatch.setenv("LAMELLA_HOSTS_DIR", "hosts")
    monkeypatch.setenv("LAMELLA_REQUIRE_SIGNATURE", "variable.pub")
    parser = argparse.ArgumentParser()
    for setting in REGISTRY:
        setting.add_to(parser)
    arguments = parser.parse_args(flags)
    fill(arguments, REGISTRY, str(tmp_path))
    assert trust_of(arguments) == expected
    assert os.environ["LAMELLA_CA_FILE"] == "variable.pem"


def test_every_setting_has_one_name_as_flag_variable_and_key() -> None:
    for setting in EVERY:
        assert setting.name == setting.name.lower()
        assert setting.variable == "LAMELLA_" + setting.name.upper().replace("-", "_")
    assert len({setting.name for setting in EVERY}) == len(EVERY)
