"""An unpacked environment in every shell: activated, left, moved, and used without any of it."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from lamella.layers.exporting.export import export
from lamella.layers.store.store import Store
from support.engines import need, need_root
from support.processes import started
from support.published import publish

if TYPE_CHECKING:
    from pathlib import Path

SHELLS = ["bash", "dash", "zsh"]
# Stands for the environment's interpreter: these tests are about everything around it.
PYTHON = {"bin/python*": f'#!/bin/sh\nexec {sys.executable} "$@"\n'}
TOOL = {
    "bin/tool*": "#!/opt/env/bin/python\nimport sys; print('tool', sys.argv[1:])\n",
    "share/where": "/opt/env\n",
    ".lamella/relocate/pypi-tool.json": json.dumps(
        {"prefix": "/opt/env", "files": [{"path": path, "kind": "text"} for path in ("bin/tool", "share/where")]}
    ),
}
CONDA = {
    "conda-meta/state": '{"env_vars": {"GREETING": "it\'s $HOME", "NOT A NAME; exit 1": "x", "HALF": "\\ud800"}}',
    "etc/conda/activate.d/a.sh": "export ACTIVE=$CONDA_PREFIX\n",
    "etc/conda/deactivate.d/a.sh": "unset ACTIVE\n",
}
CLEAN = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root"}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive that was not unpacked yet."""
    return archived(tmp_path, [PYTHON, TOOL])


def archived(tmp_path: Path, layers: list[dict[str, str]], name: str = "env") -> Path:
    made = export(
        publish(tmp_path / "layout", layers),
        str(tmp_path / f"{name}.tar.gz"),
        store=Store(str(tmp_path / "store")),
    )
    return tmp_path / made.path


def unpacked(archive: Path, place: Path) -> Path:
    place.mkdir(parents=True)
    subprocess.run(["tar", "-xzf", archive, "-C", place], check=True)
    return place


def run(shell: str, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    options = ["-f"] if shell == "zsh" else []  # no startup files
    return subprocess.run(
        [need(shell), *options, "-c", script], check=False, capture_output=True, text=True, env=CLEAN | variables
    )


def shown(shell: str, script: str, **variables: str) -> str:
    ran = run(shell, script, **variables)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_the_first_activation_makes_it_one_for_where_it_is(archive: Path, tmp_path: Path, shell: str) -> None:
    place = unpacked(archive, tmp_path / "some where")

    said = shown(shell, f". '{place}/bin/activate' && tool 'a b' && echo \"$VIRTUAL_ENV\"")

    assert said == f"tool ['a b']\n{place}\n"
    assert (place / "share/where").read_text() == f"{place}\n"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "how", ["cd {bin} && . ./activate", "set -eu; . {bin}/activate", "(. {bin}/activate; {then}) &&"]
)
def test_activation_does_not_depend_on_how_it_is_read(archive: Path, tmp_path: Path, shell: str, how: str) -> None:
    place = unpacked(archive, tmp_path / "first")
    then = 'tool; echo "$VIRTUAL_ENV"'

    said = shown(
        shell, how.format(bin=f"{place}/bin", then=then) + (" :" if "then" in how else f"; {then}; deactivate")
    )

    assert said == f"tool []\n{place}\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_after_a_move_nothing_of_the_old_place_is_activated(archive: Path, tmp_path: Path, shell: str) -> None:
    shown(shell, f". {unpacked(archive, tmp_path / 'old')}/bin/activate")
    place = (tmp_path / "old").rename(tmp_path / "new")
    unpacked(archive, tmp_path / "old")

    said = shown(shell, f'. {place}/bin/activate && tool && echo "$VIRTUAL_ENV"')

    assert said == f"tool []\n{place}\n"
    assert (tmp_path / "old/share/where").read_text() == "/opt/env\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_that_can_not_tell_which_file_it_reads_activates_nothing(
    archive: Path, tmp_path: Path, shell: str
) -> None:
    place = unpacked(archive, tmp_path / "env")

    ran = run(shell, f'cat {place}/bin/activate | (. /dev/stdin; echo "$? $PATH ${{VIRTUAL_ENV:-}}")')

    assert ran.stdout == f"1 {CLEAN['PATH']} \n"
    assert "run bin/conda-unpack in the folder to which it was unpacked" in ran.stderr


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("same", [False, True])
def test_another_environment_is_left_before_this_one_is_activated(
    archive: Path, tmp_path: Path, shell: str, same: bool
) -> None:
    first = unpacked(archive, tmp_path / "first")
    second = first if same else unpacked(archive, tmp_path / "second")

    said = shown(
        shell,
        f"""before=$(export -p); . {first}/bin/activate; . {second}/bin/activate
        echo "$VIRTUAL_ENV|$PATH"; tool; deactivate
        [ "$before" = "$(export -p)" ] && echo same; command -v deactivate || echo gone""",
    )

    assert said == f"{second}|{second}/bin:{CLEAN['PATH']}\ntool []\nsame\ngone\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_leaving_gives_back_what_variables_were(tmp_path: Path, shell: str) -> None:
    place = unpacked(archived(tmp_path, [PYTHON, TOOL, CONDA]), tmp_path / "env")

    said = shown(
        shell,
        f"""before=$(export -p); . {place}/bin/activate
        echo "$CONDA_PREFIX|$ACTIVE|$GREETING|${{PYTHONHOME-none}}|${{HALF-none}}"
        deactivate; [ "$before" = "$(export -p)" ] && echo "same $GREETING"; set | grep ^_lamella || echo nothing""",
        GREETING="hello",
        CONDA_PREFIX="/conda",
        PYTHONHOME="",
    )

    assert said == f"{place}|{place}|it's $HOME|none|none\nsame hello\nnothing\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_concurrent_first_activations_relocate_once(archive: Path, tmp_path: Path, shell: str) -> None:
    place = unpacked(archive, tmp_path / "env")

    command = [need(shell), "-c", f". {place}/bin/activate && tool"]
    with ExitStack() as stack:
        running = [
            stack.enter_context(started(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=CLEAN))
            for _ in range(12)
        ]
        assert [each.communicate()[0] for each in running] == ["tool []\n"] * 12

    assert (place / "share/where").read_text() == f"{place}\n"
    assert not (place / ".lamella/moving").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_links_to_what_it_brings_lead_to_the_environment(archive: Path, tmp_path: Path, shell: str) -> None:
    place = unpacked(archive, tmp_path / "env")
    links = tmp_path / "links/bin"
    links.mkdir(parents=True)
    (links / "activate").symlink_to(place / "bin/activate")
    (links / "unpack").symlink_to("../../env/bin/lamella-unpack")

    assert shown("sh", f"{links}/unpack && cat {place}/share/where") == f"{place}\n"
    assert shown(shell, f'. {links}/activate && echo "$VIRTUAL_ENV"') == f"{place}\n"


def test_a_relative_prefix_is_one_below_the_working_directory(archive: Path, tmp_path: Path) -> None:
    place = unpacked(archive, tmp_path / "env")

    shown("sh", f"cd {tmp_path} && env/bin/lamella-unpack later/../here/")

    assert (place / "share/where").read_text() == f"{tmp_path}/here\n"


def test_a_prefix_that_is_not_the_environments_alone_is_refused_in_words(archive: Path, tmp_path: Path) -> None:
    place = unpacked(archive, tmp_path / "env")

    ran = run("sh", f"{place}/bin/lamella-unpack /usr")

    assert ran.returncode == 1
    assert ran.stderr.startswith(
        "lamella-unpack: /usr: not usable as a prefix, files name it for the system's own paths"
    )


@pytest.mark.root
@pytest.mark.parametrize("shell", SHELLS)
def test_a_read_only_environment_says_where_to_have_it(archive: Path, tmp_path: Path, shell: str) -> None:
    need_root()
    place = unpacked(archive, tmp_path / "env")
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        ran = run(shell, f". {place}/bin/activate; command -v tool")
    finally:
        subprocess.run(["umount", place], check=True)

    assert ran.stdout == f"{place}/bin/tool\n"
    assert ran.stderr == (
        f"lamella-unpack: {place} can't be changed (Read-only file system), and is made for /opt/env: have it there, or "
        f"copy it to a folder that can be written\nlamella: scripts of {place} name another folder\n"
    )


@pytest.mark.root
def test_a_full_disk_leaves_the_environment_as_it_was(archive: Path, tmp_path: Path) -> None:
    need_root()
    place = tmp_path / "env"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "lamella-test", place], check=True)
    try:
        subprocess.run(["tar", "-xzf", archive, "-C", place], check=True)
        subprocess.run(["dd", "if=/dev/zero", f"of={place}/filler"], check=False, stderr=subprocess.DEVNULL)
        ran = run("sh", f"{place}/bin/lamella-unpack")
        left = (place / ".lamella/moving").exists(), (place / "share/where").read_text()
    finally:
        subprocess.run(["umount", place], check=True)

    assert ran.stderr == f"lamella-unpack: {place} can't be changed: No space left on device\n"
    assert left == (False, "/opt/env\n")
