"""verify, gc, copy, tags, login and logout, on small environments."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from lamella.layers import sign
from lamella.layers.pulling.pull import leased
from lamella.layers.store.store import Store
from support.distribution import distribution
from support.engines import need_root
from support.keys import key_pair
from support.published import publish

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


class Node:
    """A machine with a store and credentials of its own."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self.docker = folder / "docker"
        self.reference = publish(folder / "layout", [{"a.txt": "a" * 1000}, {"b.txt": "b" * 1000}], tag="v1")
        self.layout = folder / "layout"

    def __call__(self, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lamella.cli", *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            env=os.environ | {"LAMELLA_STORE": str(self.store), "DOCKER_CONFIG": str(self.docker)},
        )

    def json(self, *arguments: object, stdin: str = "") -> Any:
        done = self(*arguments, "--json", stdin=stdin)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_verify_removes_a_damaged_layer_and_the_next_pull_restores_it(node: Node) -> None:
    assert node("pull", node.reference).returncode == 0
    assert node("verify").returncode == 0
    (damaged,) = node.store.glob("layers/*/*/tree/opt/env/a.txt")
    damaged.chmod(0o644)
    damaged.write_text("c" * 1000)

    seen = node("verify", "--dry-run")
    assert seen.returncode == 1
    assert damaged.exists()
    document = node.json("verify")
    assert document["layers"] == 2
    assert [damage["removed"] for damage in document["damaged"]] == [True]
    assert not damaged.exists()

    assert node.json("pull", node.reference)["downloaded"]["layers"] == 1
    assert node("verify").returncode == 0


def test_verify_of_a_reference_shows_each_fault_and_the_command_that_repairs_it(node: Node) -> None:
    whole = node("verify", "--deep", node.reference)
    assert (whole.returncode, whole.stdout) == (0, f"{node.reference}\n")
    assert whole.stderr.endswith(": all intact\n")
    for blob in node.layout.glob("blobs/sha256/*"):
        if blob.stat().st_size > 2000:
            blob.unlink()
    seen = node("verify", node.reference)
    assert seen.returncode == 1
    assert "layer of p0  missing" in seen.stdout
    assert f"lamella push oci:{node.layout}:v1" in seen.stdout
    document = node.json("verify", node.reference)
    assert {(fault["what"], fault["reason"]) for fault in document["faults"]} == {
        ("layer of p0", "missing"),
        ("layer of p1", "missing"),
    }
    assert node("verify", "--deep").returncode == 2
    assert node("verify", "--dry-run", node.reference).returncode == 2


def test_attached_files_are_listed_and_fetched(node: Node, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<p>")
    kind = "application/vnd.example.report"
    attached = node("attach", node.reference, tmp_path / "report.html", "--type", kind)
    assert attached.returncode == 0, attached.stderr
    assert attached.stdout.startswith(f"oci:{node.layout}@sha256:")
    assert attached.stderr == f"attached 1 file to {node.reference}\n"
    listed = node("artifacts", node.reference)
    assert "report.html" in listed.stdout
    assert kind in listed.stdout
    (artifact,) = node.json("artifacts", node.reference)["artifacts"]
    assert (artifact["type"], artifact["files"][0]["name"]) == (kind, "report.html")
    fetched = node("fetch", node.reference, tmp_path / "out", "--type", kind)
    assert (fetched.returncode, fetched.stdout) == (0, f"{tmp_path}/out/report.html\n")
    assert (tmp_path / "out/report.html").read_text() == "<p>"
    again = node("fetch", node.reference, tmp_path / "out", "--type", kind)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert node("fetch", node.reference, tmp_path / "out", "--type", kind, "--force").returncode == 0
    assert node("attach", node.reference, "x", "--type", kind, "--annotation", "nothing").returncode == 2


def test_inspect_lists_signatures_and_everything_attached(node: Node, tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text("version = 1")
    assert "\nnot signed\n" in node("inspect", node.reference).stdout
    private, public = key_pair(tmp_path)
    sign(node.reference, private)
    node("attach", node.reference, tmp_path / "uv.lock", "--type", "application/vnd.example.lock")
    shown = node("inspect", node.reference).stdout
    assert re.search(r"^signed by key \S+ \(not verified: --require-signature KEY verifies it\)$", shown, re.MULTILINE)
    assert re.search(r"^artifact +application/vnd\.example\.lock .* uv\.lock$", shown, re.MULTILINE)
    verified = node("inspect", node.reference, "--require-signature", public).stdout
    assert re.search(r"^signed by key \S+ \(verified\)$", verified, re.MULTILINE)
    document = node.json("inspect", node.reference)
    assert [signature["verified"] for signature in document["signatures"]] == [False]
    assert [(each["kind"], each["files"][0]["name"]) for each in document["artifacts"]] == [("artifact", "uv.lock")]


def test_gc_frees_what_its_dry_run_showed(node: Node) -> None:
    assert node("pull", node.reference).returncode == 0
    assert node.json("gc", "--older-than", "1d")["freed"] == {"layers": 0, "bytes": 0}
    planned = node.json("gc", "--all", "--dry-run")
    assert len(list(node.store.glob("layers/*/*"))) == 2
    freed = node.json("gc", "--all", "--yes")
    assert freed["diff_ids"] == planned["diff_ids"]
    assert freed["freed"]["layers"] == 2
    assert freed["freed"]["bytes"] >= 2000
    assert list(node.store.glob("layers/*/*")) == []


def test_gc_of_the_layer_cache_leaves_the_store_alone(node: Node, tmp_path: Path) -> None:
    assert node("pull", node.reference).returncode == 0
    blob = tmp_path / "cache/layers/blobs/sha256" / ("a" * 64)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"a" * 2000)
    os.utime(blob, (0, 0))
    freed = node("gc", "--layer-cache", "--older-than", "1d", "--cache", tmp_path / "cache")
    assert freed.stderr == f"freed 2.0 kB, 1 built layer of {tmp_path}/cache/layers\n"
    assert not blob.exists()
    assert len(list(node.store.glob("layers/*/*"))) == 2


def test_gc_without_a_limit_is_a_usage_error(node: Node) -> None:
    done = node("gc")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lamella: gc: no limit; use --older-than 30d, --keep 20GB or --all\n"


def test_a_size_without_a_unit_is_refused(node: Node) -> None:
    assert node("pull", node.reference).returncode == 0
    done = node("gc", "--keep", "20")
    assert done.returncode == 2
    assert done.stderr.startswith("lamella: --keep 20: no unit; use a number and a unit (B, kB")
    assert len(list(node.store.glob("layers/*/*"))) == 2


@pytest.mark.parametrize("more", [(), ("--layer-cache", "--cache", "cache")])
def test_gc_of_everything_has_to_be_confirmed(node: Node, more: tuple[str, ...]) -> None:
    assert node("pull", node.reference).returncode == 0
    done = node("gc", "--all", *more)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lamella: gc --all: frees every layer that is not in use; confirm with --yes\n"
    assert len(list(node.store.glob("layers/*/*"))) == 2


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 2), ("\n", 2), ("\x04", 2)])
def test_gc_of_everything_asks_on_a_terminal(node: Node, answer: str, left: int) -> None:
    assert node("pull", node.reference).returncode == 0
    controller, terminal = os.openpty()
    os.write(controller, answer.encode())
    done = subprocess.run(
        [sys.executable, "-m", "lamella.cli", "gc", "--all"],
        check=False,
        capture_output=True,
        text=True,
        stdin=terminal,
        env=os.environ | {"LAMELLA_STORE": str(node.store)},
    )
    os.close(terminal)
    os.close(controller)
    assert re.match(rf"free [\d.]+ kB, 2 layers of {node.store}\? \[y/N\] ", done.stderr)
    assert done.returncode == (1 if left else 0)
    assert len(list(node.store.glob("layers/*/*"))) == left


def test_gc_of_the_layer_cache_counts_layers_of_the_last_hour_that_it_keeps(node: Node, tmp_path: Path) -> None:
    blob = tmp_path / "cache/layers/blobs/sha256" / ("a" * 64)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"a")
    freed = node("gc", "--layer-cache", "--all", "--yes", "--cache", tmp_path / "cache")
    assert freed.stderr.splitlines()[1] == (
        "kept 1 built layer used within the last hour: a running push may need them"
    )
    assert blob.exists()


def test_gc_names_the_process_that_keeps_layers(node: Node) -> None:
    assert node("pull", node.reference).returncode == 0
    with leased(node.reference, store=Store(str(node.store))):
        done = node("gc", "--all", "--yes")
    assert f"kept layers in use by pull {node.reference} (process {os.getpid()} of user " in done.stderr


def test_copy_copies_an_environment_and_tags_lists_its_tag(node: Node, tmp_path: Path) -> None:
    there = f"oci:{tmp_path}/there"
    done = node("copy", node.reference, f"{there}:v2")
    digest = node.reference.partition("@")[2]
    assert (done.returncode, done.stdout) == (0, f"{there}:v2@{digest}\n")
    again = node.json("copy", node.reference, f"{there}:v3")
    assert again["sent"] == again["moved"] == 0
    lines = [line.split() for line in node("tags", there).stdout.splitlines()]
    assert lines[0] == ["Tag", "Created", "Platforms", "Digest"]
    assert [line[0] for line in lines[1:]] == ["v2", "v3"]
    assert node("tags", there, "--all").stdout == "v2\nv3\n"
    assert node.json("tags", there)["tags"] == ["v2", "v3"]


def test_copy_dry_run_shows_the_plan_and_copies_nothing(node: Node, tmp_path: Path) -> None:
    there = f"oci:{tmp_path}/there:v2"
    done = node("copy", node.reference, there, "--dry-run")
    assert (done.returncode, done.stdout) == (0, f"{there}@{node.reference.partition('@')[2]}\n")
    assert re.search(r"dry run: \d+ blobs to upload, .*; 0 to mount .*, 0 already there", done.stderr)
    planned = node.json("copy", node.reference, there, "--dry-run")
    assert not (tmp_path / "there").exists()
    same = {"seconds": 0, "dry_run": True}
    assert planned | same == node.json("copy", node.reference, there) | same


def test_tags_made_of_digests_are_not_listed(node: Node, tmp_path: Path) -> None:
    there = f"oci:{tmp_path}/there"
    for tag in ("v2", f"sha256-{'0' * 64}", f"sha256-{'0' * 64}.sig"):
        assert node("copy", node.reference, f"{there}:{tag}").returncode == 0
    assert [line.split()[0] for line in node("tags", there).stdout.splitlines()] == ["Tag", "v2"]
    assert node.json("tags", there)["tags"] == ["v2"]


def test_an_invalid_registry_is_reported_before_the_password_is_asked_for(node: Node) -> None:
    for verb in ("login", "logout"):
        done = node(verb, "localhost:5000/team")
        assert done.returncode == 2
        assert "localhost:5000/team: not a registry; use its host alone, such as ghcr.io" in done.stderr


@pytest.mark.engine
def test_login_reads_the_password_from_standard_input_and_saves_it_as_docker_does(node: Node) -> None:
    with distribution() as registry:
        done = node("login", registry, "--username", "ada", stdin="open sesame\n")
        assert done.returncode == 0, done.stderr
        assert "sesame" not in done.stdout + done.stderr
        kept = json.loads((node.docker / "config.json").read_text())
        assert kept["auths"][registry] == {"auth": "YWRhOm9wZW4gc2VzYW1l"}
        assert node.json("logout", registry)["forgotten"] is True
        assert node.json("logout", registry)["forgotten"] is False
    assert registry not in json.loads((node.docker / "config.json").read_text()).get("auths", {})


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        ((), "secret\n", "login: missing user name; use --username NAME"),
        (("--username", "ada"), "", "login: missing password; type it on a terminal, or pipe it to --password-stdin"),
    ],
)
def test_login_reports_missing_credentials(arguments: tuple[str, ...], stdin: str, words: str, node: Node) -> None:
    done = node("login", "localhost:1", *arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (2, f"lamella: {words}\n")


def test_login_has_no_option_for_the_password(node: Node) -> None:
    done = node("login", "localhost:1", "--username", "ada", "--password", "secret")
    assert done.returncode == 2
    assert not (node.docker / "config.json").exists()


def test_ls_shows_environments_with_names_sizes_and_use(node: Node, tmp_path: Path) -> None:
    assert node("ls").stdout == f"no environments in {node.store}\n"
    assert node("pull", f"oci:{node.layout}:v1").returncode == 0
    lines = node("ls").stdout.splitlines()
    assert lines[0].split() == ["Environment", "Digest", "Python", "Size", "Alone", "Used", "In", "use", "by"]
    assert lines[1].startswith(f"oci:{node.layout}:v1")
    document = node.json("ls")
    (environment,) = document["environments"]
    assert environment["references"] == [f"oci:{node.layout}:v1"]
    assert environment["digest"] == node.reference.partition("@")[2]
    assert environment["bytes"] == environment["alone_bytes"] + environment["shared_bytes"]
    assert environment["in_use"] == []
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", environment["used"])
    second = f"oci:{tmp_path}/second:v2"
    assert node("copy", node.reference, second).returncode == 0
    assert node("pull", second).returncode == 0
    rows = [line.split() for line in node("ls").stdout.splitlines()[1:3]]
    assert [row[0] for row in rows] == [second, f"oci:{node.layout}:v1"]
    assert rows[0][1] == rows[1][1]
    assert len(rows[1]) == 3


@pytest.mark.parametrize("verb", ["ls", "df", "verify", "gc --older-than 1d", "gc --all --yes"])
def test_a_file_in_place_of_the_store_is_not_an_empty_store(node: Node, tmp_path: Path, verb: str) -> None:
    (tmp_path / "file").write_text("")
    done = node(*verb.split(), "--store", tmp_path / "file")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"lamella: the store {tmp_path}/file is not a folder, or has a file in place of a")


LOOKS = ["ls", "df", "verify", "gc --older-than 1d", "gc --all --yes"]


@pytest.mark.parametrize("verb", [*LOOKS, "umount /mnt"])
def test_a_mistyped_store_is_not_an_empty_store(node: Node, tmp_path: Path, verb: str) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/notes.txt").write_text("")
    for folder in (tmp_path / "missing", tmp_path / "home"):
        done = node(*verb.split(), "--store", folder)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == (
            f"lamella: --store {folder}: no store there; name the folder that lamella pull used, or leave out --store\n"
        )
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("verb", LOOKS)
def test_a_store_that_no_pull_has_made_yet_is_empty(node: Node, tmp_path: Path, verb: str) -> None:
    assert not node.store.exists()
    assert node(*verb.split()).returncode == 0
    (tmp_path / "empty").mkdir()
    assert node(*verb.split(), "--store", tmp_path / "empty").returncode == 0


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("pull {0} --store /proc/lamella", "choose another with LAMELLA_STORE"),
        ("copy {0} oci:/proc/lamella:v1", "name another folder"),
        ("export {0} /proc/lamella", "export to"),
        ("mount {0} /proc/lamella", "use another folder"),
    ],
)
@pytest.mark.root
def test_a_place_where_no_folder_can_be_made_is_answered_with_another(node: Node, command: str, advice: str) -> None:
    need_root()
    done = node(*command.format(node.reference).split())
    assert done.returncode == 1
    assert done.stderr.startswith("lamella: ")
    assert advice in done.stderr


@pytest.mark.parametrize("verb", ["df", "gc --layer-cache --all --yes"])
def test_a_mistyped_cache_is_not_an_empty_cache(node: Node, tmp_path: Path, verb: str) -> None:
    done = node(*verb.split(), "--cache", tmp_path / "missing")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"lamella: --cache {tmp_path}/missing: no such folder; name the one that lamella push used, or leave out --cache\n"
    )


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("gc --all --yes --store", "--store: empty FOLDER; name a folder, or leave out --store"),
        ("gc --layer-cache --all --yes --cache", "--cache: empty FOLDER; name a folder, or leave out --cache"),
        ("mount oci:a:v1", "mount: empty TARGET; usage: lamella mount [options] REFERENCE [TARGET]"),
        ("mount oci:a:v1 --agent", "--agent: empty SOCKET; name the agent's socket, or leave out --agent"),
    ],
)
def test_an_unset_variable_in_a_script_is_reported_as_empty(node: Node, command: str, problem: str) -> None:
    done = node(*command.split(), "")
    assert (done.returncode, done.stderr) == (2, f"lamella: {problem}\n")


def test_df_shows_what_gc_frees(node: Node, tmp_path: Path) -> None:
    assert node("pull", node.reference).returncode == 0
    (tmp_path / "cache").mkdir()
    document = node.json("df", "--cache", tmp_path / "cache")
    assert document["store"]["layers"] == 2
    assert document["cache"]["bytes"] == 0
    shown = node("df", "--cache", tmp_path / "cache").stdout
    assert f"store {node.store}: " in shown
    assert "lamella gc --older-than 30d frees 0 B\nlamella gc --all frees " in shown
    freed = node.json("gc", "--all", "--yes")
    assert freed["freed"]["bytes"] == document["store"]["reclaimable"]


def test_untag_and_gc_free_a_layout_folder(node: Node) -> None:
    blobs = node.layout / "blobs/sha256"
    before = len(list(blobs.iterdir()))
    planned = node("untag", f"oci:{node.layout}:v1", "--dry-run")
    assert planned.stdout == f"{node.reference}\n"
    assert planned.stderr == f"would remove the tag; lamella gc oci:{node.layout} frees the blobs\n"
    removed = node.json("untag", node.reference)
    assert (
        removed
        == {
            "reference": node.reference,
            "dry_run": False,
            "manifest_deleted": False,
            "other_tags": [],
        }
        | removed
    )
    listed = node("tags", f"oci:{node.layout}")
    assert listed.stdout == ""
    assert listed.stderr == f"no environments in oci:{node.layout}; --all lists every tag\n"
    young = node("gc", f"oci:{node.layout}")
    assert f"kept {before} blobs without a tag that may belong to a running push" in young.stderr
    assert node.json("gc", f"oci:{node.layout}", "--older-than", "0s")["freed"]["blobs"] == before
    assert list(blobs.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gc", "oci:layout:v1"), "gc oci:layout:v1: not an OCI layout folder; write oci:FOLDER, without a tag"),
        (("gc", "localhost:5000/team/envs"), "not an OCI layout folder; write oci:FOLDER"),
        (("gc", "oci:layout", "--keep", "1GB"), "--keep: has no effect with oci:FOLDER; leave one of them out"),
        (("gc", "oci:layout", "--all"), "confirm with --yes"),
    ],
)
def test_gc_of_anything_but_a_layout_folder_is_a_usage_error(
    node: Node, arguments: tuple[str, ...], message: str
) -> None:
    done = node(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
