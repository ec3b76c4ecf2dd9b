"""Channels as conda, mamba and pixi are configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.builder.indexes.conda_settings import conda_channels
from lamella.builder.indexes.settings_files import InvalidIndexSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Channels = Callable[..., list[str]]

PUBLIC = ["https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r"]


@pytest.fixture
def channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Channels:
    """Read the channels of a project and a user in `tmp_path`, without the public defaults at the end."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home/.config"))

    def read(**environ: str) -> list[str]:
        found = conda_channels(str(tmp_path / "project"), str(tmp_path / "root/envs/mine"), environ)
        return [each for each in found if each not in PUBLIC]

    return read


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_files_of_conda_are_read_from_all_their_places_the_most_preferred_first(
    channels: Channels, tmp_path: Path
) -> None:
    for number, name in enumerate(
        ("root/.condarc", "home/.config/conda/condarc.d/a.yml", "home/.conda/.condarc", "home/.condarc",
         "root/envs/mine/.condarc")
    ):  # fmt: skip
        write(tmp_path / name, f"channels: [https://c.example/{number}]\n")
    named = write(tmp_path / "named.yml", "channels:\n  - https://c.example/named\n")
    expected = ["named", "4", "3", "2", "1", "0"]
    assert channels(CONDARC=str(named)) == [f"https://c.example/{each}" for each in expected]


def test_names_stand_for_urls_by_alias_custom_channels_and_mirrors(channels: Channels, tmp_path: Path) -> None:
    write(
        tmp_path / "home/.condarc",
        """
channel_alias: https://ada:${TOKEN}@conda.corp.example/
channels: [team, defaults, torch/label/dev, mirrored, plain]
default_channels: [https://d.example/main]
custom_channels: {torch: https://t.example/t/$TOKEN}
custom_multichannels: {team: [one, https://two.example/c]}
mirrored_channels: {mirrored: [https://m.example/c]}
""",
    )
    assert channels(TOKEN="pw") == [
        "https://ada:pw@conda.corp.example/one",
        "https://two.example/c",
        "https://d.example/main",
        "https://t.example/t/pw/torch/label/dev",
        "https://m.example/c",
        "https://ada:pw@conda.corp.example/plain",
    ]


@pytest.mark.parametrize(("name", "table"), [("pixi.toml", ""), ("pyproject.toml", "tool.pixi.")])
def test_channels_of_pixi_go_first_in_the_order_of_their_priority(
    channels: Channels, tmp_path: Path, name: str, table: str
) -> None:
    write(
        tmp_path / f"project/{name}",
        f'[{table}workspace]\nchannels = ["conda-forge", {{ channel = "https://p.example/c", priority = 1 }}]\n',
    )
    write(tmp_path / "home/.condarc", "channels: [other]\n")
    alias = "https://conda.anaconda.org"
    assert channels() == ["https://p.example/c", f"{alias}/conda-forge", f"{alias}/other"]


def test_malformed_file_is_one_sentence_without_a_password(channels: Channels, tmp_path: Path) -> None:
    path = write(tmp_path / "home/.condarc", "channels: [https://ada:hunter2@x\n")
    with pytest.raises(InvalidIndexSettings) as refused:
        channels()
    assert str(refused.value) == f"{path}: cannot be read: not YAML; correct it"
