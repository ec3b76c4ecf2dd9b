"""What users of docker, kubectl, dask, uv, pip, conda, conda-pack and pixi type first: done as meant, or answered with Lamella's words."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

from lamella.cli import habits
from lamella.cli.main import main
from lamella.cli.parsers import verb_parser
from lamella.cli.verbs import VERBS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def mentioned(hint: str) -> Iterator[tuple[str, list[str]]]:
    """The verbs that a hint names, each with the flags behind it."""
    for found in re.finditer(r"\blamella ([a-z]+)((?: -{1,2}[a-z][a-z-]*)*)", hint):
        yield found[1], found[2].split()


HINTS = sorted({*habits.VERBS.values(), *habits.FLAGS.values(), *habits.EVERYWHERE.values()})


@pytest.mark.parametrize("hint", HINTS)
def test_every_hint_names_verbs_and_flags_that_exist(hint: str) -> None:
    for verb, flags in mentioned(hint):
        assert verb in VERBS, hint
        assert set(flags) <= set(verb_parser(verb).flags()), hint
    assert hint[0] != hint[0].upper() or hint.startswith("Lamella")


@pytest.mark.parametrize(("verb", "flag"), habits.FLAGS)
def test_no_hint_stands_for_a_flag_that_exists(verb: str, flag: str) -> None:
    assert flag not in verb_parser(verb).flags()


def test_no_hint_or_alias_stands_for_a_verb_that_exists() -> None:
    assert not {*habits.VERBS, *habits.ALIASES} & VERBS.keys()
    assert set(habits.ALIASES.values()) <= VERBS.keys()


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        # uv, pip and pixi
        ("lamella sync", "sync: unknown verb; use lamella pull REFERENCE, then lamella run or lamella mount"),
        ("lamella install numpy", "install: unknown verb; Lamella installs no packages; use pip, uv, conda or pixi"),
        ("lamella add numpy", "add: unknown verb; Lamella installs no packages"),
        ("lamella lock", "lock: unknown verb; Lamella installs no packages"),
        ("lamella pip install numpy", "pip: unknown verb; Lamella installs no packages"),
        ("lamella list", "list: unknown verb; use lamella ls for the store, lamella scan for an environment"),
        ("lamella tree", "tree: unknown verb; use lamella scan"),
        ("lamella shell", "shell: unknown verb; use lamella run REFERENCE -- bash"),
        ("lamella activate", "activate: unknown verb; use lamella run REFERENCE -- bash"),
        ("lamella publish", "publish: unknown verb; use lamella push REFERENCE"),
        ("lamella cache clean", "cache: unknown verb; use lamella gc --older-than 30d"),
        # docker, podman, skopeo and oras
        ("lamella build -t x .", "build: unknown verb; use lamella push REFERENCE"),
        ("lamella images", "images: unknown verb; use lamella ls"),
        ("lamella rmi x", "rmi: unknown verb; use lamella untag REFERENCE"),
        ("lamella ps", "ps: unknown verb; use lamella ls, which shows each mount"),
        ("lamella exec x bash", "exec: unknown verb; use lamella run REFERENCE -- bash"),
        ("lamella tag a b", "tag: unknown verb; use lamella copy SOURCE DESTINATION"),
        ("lamella save x", "save: unknown verb; use lamella export PREFIX env.tar.gz"),
        ("lamella system prune", "system: unknown verb; use lamella gc"),
        ("lamella manifest x", "manifest: unknown verb; use lamella inspect REFERENCE"),
        ("lamella version", "version: unknown verb; use lamella --version"),
        ("lamella run -it host/x -- bash", "run -i: unknown option; leave it out: the command has this terminal"),
        ("lamella run --rm host/x -- bash", "run --rm: unknown option; leave it out"),
        ("lamella run -e A=1 host/x -- bash", "run -e: unknown option; set the variable before"),
        ("lamella run -v /a:/b host/x -- bash", "run -v: shows requests and takes no folders; leave it out: the"),
        ("lamella run -v /a:/b host/x bash", "run -v: shows requests and takes no folders; leave it out: the"),
        ("lamella run --gpus all host/x bash", "run --gpus: unknown option; the command sees this machine's devices"),
        ("lamella run --entrypoint sh host/x", "run --entrypoint: unknown option; write the command behind --"),
        ("lamella run -p 8888:8888 host/x bash", "run -p: unknown option; leave it out: the command has this"),
        ("lamella run host/x -m alpha", "run -m: unknown option; write it behind --: lamella run REFERENCE -- python"),
        ("lamella run -n base python", "run -n: unknown option; name the environment by its reference"),
        ("lamella run --with rich host/x python", "run --with: unknown option; Lamella installs no packages"),
        ("lamella run --nosuch value host/x python", "run --nosuch: unknown option; see lamella run --help"),
        ("lamella run host/x bash", "run: missing -- before the command; use lamella run host/x -- bash"),
        ("lamella login -u ada -p x host", "login -p: unknown option; every process can read a command line"),
        ("lamella login --password x host", "login --password: unknown option; every process can read"),
        ("lamella push --tls-verify=false x", "push --tls-verify: unknown option; use --insecure"),
        ("lamella push -t host/x", "push -t: unknown option; give the reference as an argument"),
        ("lamella pull --creds a:b host/x", "pull --creds: unknown option; use lamella login"),
        # kubectl, helm and kustomize
        (
            "lamella apply -f pod.yaml",
            "apply: unknown verb; use lamella inject FILE --env REFERENCE, then kubectl apply",
        ),
        (
            "lamella inject -f pod.yaml --env x/y:1",
            "inject -f: unknown option; give the manifest as an argument: lamella",
        ),
        ("lamella inject -k overlay --env x/y:1", "inject -k: unknown option; give the output of kustomize build: "),
        (
            "lamella inject pod.yaml x/y:1",
            "inject x/y:1: too many arguments; name the environment with --env REFERENCE",
        ),
        ("lamella inject x/y:1 pod.yaml", "inject pod.yaml: too many arguments; name the environment with --env"),
        ("lamella inject pod.yaml -n prod --env x/y:1", "inject -n: unknown option; pods keep the namespace of their"),
        (
            "lamella inject pod.yaml --dry-run --env x/y:1",
            "inject --dry-run: unknown option; leave it out: inject only",
        ),
        # coiled, dask, ray
        ("lamella watch x/y:1", "watch: unknown verb; use lamella push --watch REFERENCE here"),
        ("lamella cluster start", "cluster: unknown verb; use lamella.integrations in Python for Dask and Ray"),
        ("lamella daemon", "daemon: unknown verb; use lamella agent for a node, or lamella inject --daemonset --allow"),
        # conda-pack
        ("lamella pack", "pack: unknown verb; use lamella export PREFIX env.tar.gz for an environment on this disk"),
        ("lamella -p . -o out.tar.gz", "-p: unknown option; use lamella export . out.tar.gz\n"),
        ("lamella --prefix=. --output=out.zip", "--prefix: unknown option; use lamella export . out.zip\n"),
        ("lamella -p absent -o a.tgz", "-p: unknown option; use lamella export PREFIX a.tgz\n"),
        ("lamella -n name -o a.tgz", "-n: unknown option; use lamella export PREFIX a.tgz; conda env list"),
        ("lamella check", "check: unknown verb; use lamella verify, or lamella verify REFERENCE"),
        ("lamella conda-unpack", "conda-unpack: unknown verb; exports need no fixing"),
        # in the wrong order, misspelled, half
        ("lamella", "usage: lamella [options] VERB"),
        ("lamella help images", "help images: unknown verb; use lamella ls for the store"),
        ("lamella help pusg", "help pusg: unknown verb; did you mean push?"),
        ("lamella pusg x", "pusg: unknown verb; did you mean push?"),
        ("lamella PULL x", "PULL: unknown verb; did you mean pull?"),
        ("lamella pull", "pull: missing REFERENCE; usage: lamella pull [options] REFERENCE"),
        ("lamella pull --plattform x y", "pull --plattform: unknown option; did you mean --platform?"),
        ("lamella export env x.tar -j 2 --nosuch", "export -j: unknown option; use --threads N"),
        ("lamella export env x.tar --nosuch", "export --nosuch: unknown option; see lamella export --help"),
    ],
)
def test_a_habit_of_another_tool_is_answered(command: str, answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(shlex.split(command)[1:])
    printed = capsys.readouterr()
    assert code in {2, 125}
    assert printed.out == ""
    assert printed.err.removeprefix("lamella: ").startswith(answer)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("lamella push .", ".: a folder, not a reference; use lamella push REFERENCE\n"),
        (
            "lamella push .venv",
            ".venv: an environment on this disk, not a reference; use lamella push REFERENCE .venv\n",
        ),
        ("lamella push ./.venv host/x:v1", "./.venv: an environment on this disk, not a reference; use lamella push"),
        ("lamella run .venv -- python", ".venv: an environment on this disk, not a reference; use lamella push"),
        ("lamella mount .venv target", ".venv: an environment on this disk, not a reference; use lamella push"),
        ("lamella copy .venv host/x:v1", ".venv: an environment on this disk, not a reference; use lamella push"),
        ("lamella inspect .venv", ".venv: an environment on this disk, not a reference; use lamella scan .venv\n"),
        ("lamella pull ./layout", "./layout: an OCI layout folder; write oci:./layout:TAG\n"),
        ("lamella tags ./layout", "./layout: an OCI layout folder; write oci:./layout:TAG\n"),
        ("lamella pull env.tar.gz", "env.tar.gz: a file, not a reference; write REGISTRY/REPOSITORY:TAG\n"),
        ("lamella export env.tar.gz out", "env.tar.gz: a file, not a reference; write REGISTRY/REPOSITORY:TAG\n"),
        (
            "lamella export .venv oci:layout:v3",
            "export oci:layout:v3: a reference, where export writes a folder or archive; use lamella push oci:layout:v3 .venv\n",
        ),
        (
            "lamella export host:5000/a/b:v1 ghcr.io/a/b:v1",
            "export ghcr.io/a/b:v1: a reference, where export writes a folder or archive; use lamella copy host:5000/a/b:v1 ",
        ),
        (
            "lamella export .venv localhost:5000/a/b",
            "export localhost:5000/a/b: a reference, where export writes a folder",
        ),
        ("lamella pull ./absent", "./absent: a path; write oci:./absent:TAG for an OCI layout folder\n"),
        ("lamella scan oci:a:v1", "oci:a:v1: a reference, not the folder of an environment; lamella inspect oci:a:v1 "),
        ("lamella push host:5000/a:v2 host:5000/a:v1", "host:5000/a:v1: a reference, not the folder of an environment"),
        ("lamella explain x ghcr.io/a/b:v1", "ghcr.io/a/b:v1: a reference, not the folder of an environment; lamella"),
        ("lamella compare localhost:5000/a/b:v1", "localhost:5000/a/b:v1: a reference, not the folder of an environ"),
        ("lamella scan absent", "{here}/absent: no such folder; name the folder that holds bin/python"),
    ],
)
def test_a_path_in_place_of_a_reference_and_the_reverse_are_answered(
    command: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/pyvenv.cfg").write_text("")
    (tmp_path / "layout").mkdir()
    (tmp_path / "layout/oci-layout").write_text("")
    (tmp_path / "env.tar.gz").write_text("")
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[1:]) in {2, 12, 125}
    assert capsys.readouterr().err.removeprefix("lamella: ").startswith(answer.format(here=tmp_path))


@pytest.mark.parametrize(
    ("verb", "words", "answer"),
    [
        ("pull", ["layout"], "layout: an OCI layout folder; write oci:layout:TAG"),
        ("inspect", ["--json", "layout"], "layout: an OCI layout folder; write oci:layout:TAG"),
        (
            "run",
            ["env", "--", "true"],
            "env: an environment on this disk, not a reference; use lamella push REFERENCE env",
        ),
        ("verify", ["env"], "env: an environment on this disk, not a reference; use lamella scan env"),
        ("run", ["busybox", "--", "ls", "layout"], "docker.io: cannot connect"),
        ("push", ["busybox", "env"], "docker.io: cannot connect"),
        ("pull", ["busybox"], "docker.io: cannot connect"),
    ],
)
def test_a_folder_that_was_looked_for_on_docker_io_is_answered(
    verb: str, words: list[str], answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env/pyvenv.cfg").write_text("")
    (tmp_path / "layout").mkdir()
    (tmp_path / "layout/oci-layout").write_text("")
    monkeypatch.chdir(tmp_path)
    assert habits.path_sentence(verb, words, "docker.io: cannot connect") == answer


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("lamella verify ''", "REFERENCE"),
        ("lamella gc '' --all --yes", "oci:FOLDER"),
        ("lamella push host/x:v1 ''", "PREFIX"),
        ("lamella export '' env.tar", "SOURCE"),
        ("lamella umount ''", "TARGET"),
        ("lamella run '' -- true", "REFERENCE"),
        ("lamella login ''", "REGISTRY"),
    ],
)
def test_an_empty_argument_does_not_stand_for_another(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb = command.split()[1]
    assert main(shlex.split(command)[1:]) in {2, 125}
    assert capsys.readouterr().err.startswith(f"lamella: {verb}: empty {name}; usage: lamella {verb}")


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("pack -p .venv -o out.tgz", "lamella export .venv out.tgz"),
        ("conda-pack -n science", "lamella export {home}/envs/science env.tar.gz"),
        (
            "conda-pack -n other",
            "lamella export PREFIX env.tar.gz; conda env list shows the prefix of each environment",
        ),
        ("-n science -o s.zip -f", "lamella export -f {home}/envs/science s.zip"),
        ("export .venv -o out.tgz", "lamella export .venv out.tgz"),
        ("export .venv --output=out.tgz", "lamella export .venv out.tgz"),
        ("export -p .venv", "lamella export .venv env.tar.gz"),
        ("export -p absent -o out.tgz", "lamella export PREFIX out.tgz"),
        ("export --prefix .venv -o out.tgz", "lamella export .venv out.tgz"),
        ("export -o out.tgz -q", "lamella export -q out.tgz"),
        ("export -n science --format zip", "lamella export --format zip {home}/envs/science env.zip"),
        ("export -n science --format no-archive", "lamella export --format dir {home}/envs/science env"),
        ("export .venv out.tgz -j 4 --ignore-missing-files", "lamella export --threads 4 .venv out.tgz"),
        ("export .venv out.tgz --n-threads -1", "lamella export .venv out.tgz"),
        ("export .venv out.tgz -d /srv/a -j2", "lamella export --prefix /srv/a --threads 2 .venv out.tgz"),
        ("export out.tgz -d /srv/a", "lamella export --prefix /srv/a out.tgz"),
        ("export .venv out.tgz --prefix /srv/a -j2", "lamella export --prefix /srv/a --threads 2 .venv out.tgz"),
        (
            "export .venv -o out.tgz --exclude '*.pyx' --include 'a b' --compress-level 9",
            "lamella export --exclude '*.pyx' --include 'a b' --compress-level 9 .venv out.tgz",
        ),
    ],
)
def test_a_line_of_conda_pack_is_answered_with_the_whole_line_of_export(
    typed: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (".venv", "envs/science", ".conda"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / ".conda/environments.txt").write_text(f"{tmp_path}/envs/science\n{tmp_path}/envs/gone\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(typed)) == 2
    printed = capsys.readouterr().err.rstrip("\n")
    assert printed.partition("; use ")[2] == line.format(home=tmp_path)
    # The line is a valid one.
    words = shlex.split(printed.partition("; use lamella export ")[2].partition(";")[0])
    assert verb_parser("export").checked(words)[1] == []


@pytest.mark.parametrize(
    ("typed", "example"),
    [
        ("export .venv -f", "lamella export --force .venv env.tar.gz"),
        ("export .venv --format zip", "lamella export .venv env.zip"),
        ("export .venv --format no-archive", "lamella export .venv env"),
        ("export .venv", "lamella export .venv env.tar.gz"),
    ],
)
def test_an_export_without_a_path_is_answered_with_an_example(
    typed: str, example: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed.split()) == 2
    printed = capsys.readouterr().err
    assert printed == f"lamella: export .venv: missing PATH or --to-docker; for example {example}\n"


@pytest.mark.parametrize(("alias", "verb"), [("unmount", "umount"), ("cp", "copy"), ("du", "df")])
def test_an_alias_is_its_verb(alias: str, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for name in (alias, verb):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        shown.append(capsys.readouterr().out)
        assert main(["help", name]) == 0
        shown.append(capsys.readouterr().out)
    assert shown == shown[:1] * 4
