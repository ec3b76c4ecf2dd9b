"""The command line: help, messages, exit codes, and the modules that it loads."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lamella.cli.main import main
from lamella.cli.parsers import EXAMPLES, parsed
from lamella.cli.verbs import GROUPS, VERBS, module
from lamella.layers.oci.documents import Platform
from support.installed import venv
from support.processes import started
from support.published import publish


def lamella(*arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
    """Run `lamella` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "lamella.cli", *arguments],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | options,
    )


def loaded(*arguments: str) -> set[str]:
    """Return the modules that a command line loads, without those that Python's start loads, such as coverage's."""
    program = (
        "import sys; before = set(sys.modules)\n"
        "from lamella.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('\\n' + ' '.join(sys.modules.keys() - before), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True)
    return set(done.stderr.splitlines()[-1].split())


def test_help_names_every_verb_and_goes_to_stdout() -> None:
    done = lamella("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for verb in VERBS:
        assert f"\n  {verb} " in done.stdout


def test_the_script_and_the_module_print_the_same_help() -> None:
    script = Path(sys.executable).with_name("lamella")
    done = subprocess.run([script, "--help"], check=True, capture_output=True, text=True)
    assert done.stdout == lamella("--help").stdout


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("scan", "--help"), ("no-such-verb",)])
def test_help_loads_neither_layers_nor_builder_nor_anything_foreign(arguments: tuple[str, ...]) -> None:
    names = loaded(*arguments)
    roots = {name.partition(".")[0] for name in names}
    assert roots.isdisjoint({"rich", "urllib3", "zstandard", "docker", "cachetools", "ssl", "tomllib", "asyncio"})
    # Sizes and counts as text are written the same way by the API; that module imports nothing of the project.
    ours = {name for name in names if name.startswith(("lamella.layers.", "lamella.builder."))}
    assert ours <= {"lamella.layers.text"}


@pytest.mark.slow
def test_a_push_for_this_machine_loads_nothing_that_resolves_for_another_one(tmp_path: Path) -> None:
    """It took as long as half of a scan."""
    prefix = venv(tmp_path / "env", by="uv")
    names = loaded("push", f"oci:{tmp_path}/layout:v1", str(prefix), "--no-local")
    assert "lamella.builder.pushing.push" in names
    assert [name for name in names if name.startswith(("lamella.builder.resolving", "lamella.builder.indexes"))] == []


def test_a_verb_loads_no_other_verb() -> None:
    verbs = {name for name in loaded("scan", "--help") if name.startswith("lamella.cli.verbs.")}
    assert verbs == {"lamella.cli.verbs.scan"}


@pytest.mark.slow
def test_an_option_may_stand_between_positional_arguments(tmp_path: Path) -> None:
    done = lamella("push", f"oci:{tmp_path}/layout:v1", "--max-layers", "7", f"{tmp_path}/absent", "--quiet")
    assert done.returncode == 12
    assert f"{tmp_path}/absent" in done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_json_and_its_settings(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    text = capsys.readouterr().out
    assert "--json" in text
    assert f"usage: lamella {verb} " in text
    for setting in module(verb).SETTINGS:
        assert f"--{setting.name}" in text


def test_a_missing_verb_is_a_usage_error_that_shows_the_verbs() -> None:
    done = lamella()
    assert (done.returncode, done.stdout) == (2, "")
    assert "inspect" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no-such-verb",), "no-such-verb: unknown verb; see lamella --help"),
        (("pul", "x"), "pul: unknown verb; did you mean pull?"),
        (("inspect",), "inspect: missing REFERENCE; usage: lamella inspect [options] REFERENCE"),
        (("attach", "x"), "attach: missing --type; usage: lamella attach REFERENCE FILE... --type TYPE [options]"),
        (("inspect", "x", "y"), "inspect: too many arguments; usage: lamella inspect [options] REFERENCE"),
        (("inspect", "x", "--no-such-flag"), "inspect --no-such-flag: unknown option; see lamella inspect --help"),
        (("push", "x", "--dryrun"), "push --dryrun: unknown option; did you mean --dry-run?"),
        (("push", "x", "--dry"), "push --dry: unknown option; did you mean --dry-run?"),
        (("push", "x", "--forse"), "push --forse: unknown option; see lamella push --help"),
        (
            ("pull", "x", "--base", "y"),
            "pull --base: unknown option; it is an option of push; see lamella pull --help",
        ),
        (("push", "x", "--base"), "--base: missing value; use --base REFERENCE"),
        (("push", "x", "--fail-on"), "--fail-on: missing value; use --fail-on never|warning|error"),
        (("push", "x", "--compression", "zst"), "--compression zst: invalid choice; did you mean zstd?"),
        (("push", "x", "--compression", "rar"), "--compression rar: invalid choice; use zstd or gzip"),
        (("push", "x", "--json=yes"), "--json: takes no value; use --json alone"),
        (("--no-such-flag",), "--no-such-flag: unknown option; missing VERB before it; see lamella --help"),
        (("help", "pul"), "help pul: unknown verb; did you mean pull?"),
    ],
)
def test_an_invalid_command_line_exits_with_2(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (main(arguments), *capsys.readouterr()) == (2, "", f"lamella: {words}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("login", "localhost:1", "-u", "ada", "-p", "s3cret"),
        ("login", "localhost:1", "-u", "ada", "-ps3cret"),
        ("login", "localhost:1", "-u", "ada", "--password", "s3cret"),
        ("login", "localhost:1", "-u", "ada", "--password=s3cret"),
        ("login", "localhost:1", "ada", "s3cret"),
        ("pull", "localhost:1/x", "--creds", "ada:s3cret"),
        ("pull", "localhost:1/x", "--no-such-flag=s3cret"),
        ("pull", "https://ada:s3cret@localhost:1/x"),
        ("pull", "ada:s3cret@localhost:1/x"),
        ("pull", "--insecure=s3cret", "localhost:1/x"),
        ("run", "localhost:1/x", "tool", "--password", "s3cret"),
        ("run", "localhost:1/x", "-e", "PASSWORD=s3cret", "tool"),
        ("run", "localhost:1/x", "-e", "PASSWORD=s3cret", "--", "tool"),
        ("-p", "s3cret"),
        ("-p", "s3cret", "localhost:1/x", "env"),
        ("export", "-p", "s3cret", "localhost:1/x", "env"),
        ("scan", "https://ada:s3cret@localhost:1/x"),
        ("https://ada:s3cret@localhost:1/x",),
        ("help", "https://ada:s3cret@localhost:1/x"),
        ("tags", "ada:s3cret@localhost:1/x"),
        ("login", "https://ada:s3cret@localhost:1"),
        ("umount", "--json", "https://ada:s3cret@localhost:1"),
        ("--password=s3cret", "pull"),
    ],
)
def test_a_usage_error_repeats_no_value_that_may_be_a_password(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) != 0
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "s3cret" not in shown.out + shown.err


def test_an_abbreviation_of_a_flag_is_not_a_flag() -> None:
    # --password would be --password-stdin, and its value an argument.
    assert lamella("login", "--password", "x").returncode == 2


@pytest.mark.parametrize("before", ["--json", "-q", "--verbose"])
@pytest.mark.slow
def test_flags_of_every_verb_may_stand_before_it(before: str, tmp_path: Path) -> None:
    reference = publish(tmp_path / "layout", [{"a": ""}])
    assert lamella(before, "inspect", reference).stdout == lamella("inspect", before, reference).stdout


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_is_the_same_by_verb_and_by_flag(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", verb]) == 0
    by_verb = capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert (ended.value.code, capsys.readouterr().out) == (0, by_verb)


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
def test_help_fits_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for arguments in ([], *([verb] for verb in VERBS)):
        main(["help", *arguments])
    # Usage, titles, flags and commands to copy stay whole.
    prose = [
        line
        for line in capsys.readouterr().out.splitlines()
        if not line.startswith("usage: ") and "lamella " not in line and not line.startswith("  -") and line[-1:] != ":"
    ]
    assert max(map(len, prose)) < min(columns, 101)


def test_each_group_of_verbs_has_a_title_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    main(["help"])
    printed = capsys.readouterr().out
    assert {verb.group for verb in VERBS.values()} == GROUPS.keys()
    assert [title for title in GROUPS.values() if f"\n{title}:\n" not in printed] == []


@pytest.mark.parametrize("command", [*EXAMPLES, *(each for verb in VERBS.values() for each in verb.examples)])
def test_every_example_of_the_help_is_a_valid_command_line(command: str) -> None:
    words = shlex.split(re.sub(r"^eval \"\$\((.*)\)\"$| \| source$| <\S+$|^helm .* \| ", r"\1", command))
    assert words[0] == "lamella"
    parsed(words[1], words[2:])


def test_an_invalid_variable_exits_with_2_and_one_line() -> None:
    done = lamella("inspect", "oci:x:y", LAMELLA_INSECURE="perhaps")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lamella: LAMELLA_INSECURE perhaps: not a boolean; use true or false\n"


def test_an_error_is_one_line_on_stderr_and_an_exit_code(tmp_path: Path) -> None:
    done = lamella("inspect", f"oci:{tmp_path}/absent:tag")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("lamella: ")
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / "absent") in done.stderr


def test_run_without_dashes_before_the_command_shows_the_right_command_line() -> None:
    done = lamella("run", "localhost:1/x:v1", "python", "-c", "print(1)")
    assert done.returncode == 125
    assert done.stderr == (
        "lamella: run: missing -- before the command; use lamella run localhost:1/x:v1 -- python ...\n"
    )


def test_a_removed_working_directory_is_reported(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    command = [sys.executable, "-m", "lamella.cli", "verify"]
    done = subprocess.run(["sh", "-c", script, "sh", gone, *command], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "lamella: current directory no longer exists; cd to another one\n"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ("ulimit -n 20", "too many open files; raise the limit (ulimit -n)"),
        (
            "ulimit -s 4000000; ulimit -v 1500000",
            "cannot start a thread to pull; raise the limits on processes and memory (ulimit -u, -v)",
        ),
    ],
)
@pytest.mark.slow
def test_a_limit_that_is_too_low_is_reported_in_one_line(tmp_path: Path, limits: str, words: str) -> None:
    reference = publish(tmp_path / "layout", [{f"{number}": ""} for number in range(20)])
    done = subprocess.run(
        ["sh", "-c", f'{limits}; exec "$@"', "sh", sys.executable, "-m", "lamella.cli", "pull", reference],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"LAMELLA_STORE": str(tmp_path / "store")},
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"lamella: {words}\n")


@pytest.mark.slow
def test_a_scan_that_can_start_no_thread_names_the_limits(tmp_path: Path) -> None:
    limits = 'ulimit -s 4000000; ulimit -v 1500000; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", limits, "sh", sys.executable, "-m", "lamella.cli", "scan", venv(tmp_path / "env")],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"LAMELLA_CACHE": str(tmp_path / "cache")},
    )
    words = "cannot start a thread; raise the limits on processes and memory (ulimit -u, -v)"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"lamella: {words}\n")


@pytest.mark.slow
def test_pull_warns_before_the_download_if_this_machine_cannot_run_the_environment(tmp_path: Path) -> None:
    reference = publish(tmp_path / "layout", [{"a": ""}], glibc="9.99", drivers="libnone.so.1")
    done = lamella("pull", reference, LAMELLA_STORE=str(tmp_path / "store"))
    first, second, last = done.stderr.splitlines()
    assert done.returncode == 0
    assert first.startswith("lamella: this environment cannot run here: it needs glibc 9.99 or newer")
    assert second.startswith("lamella: libnone.so.1: not found")
    assert "1 layer downloaded" in last
    for_another = lamella("pull", "--platform", str(Platform.here()), reference, LAMELLA_STORE=str(tmp_path / "store"))
    assert len(for_another.stderr.splitlines()) == 1


def test_an_error_shows_its_traceback_with_lamella_debug(tmp_path: Path) -> None:
    done = lamella("inspect", f"oci:{tmp_path}/absent:tag", LAMELLA_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_an_internal_error_names_the_variable_that_shows_its_traceback(tmp_path: Path) -> None:
    # The smallest bug: a verb without its module.
    program = (
        "import sys; from lamella.cli import main as m, verbs as v; v.VERBS['gone'] = v.Verb('missing', 'node'); "
        "sys.argv = ['lamella', 'gone']; sys.exit(m.main())"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("lamella: internal error: ModuleNotFoundError: ")
    assert "LAMELLA_DEBUG=1" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("platform", "name"), [("darwin", "macOS"), ("win32", "Windows")])
@pytest.mark.parametrize("verb", sorted({"verify", *(verb for verb, about in VERBS.items() if about.needs_linux)}))
def test_a_verb_that_needs_linux_fails_in_one_line_on_other_systems(
    verb: str, platform: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    arguments = {
        "agent": ["--allow", "registry.example.com"],
        "run": ["oci:x:y", "--", "python"],
        "mount": ["oci:x:y", "target"],
        "umount": ["target"],
        "verify": [],
        "gc": [],
        "ls": [],
        "df": [],
    }
    code = main([verb, *arguments.get(verb, ["oci:x:y"])])
    printed = capsys.readouterr()
    assert (code, printed.out) == (125 if verb == "run" else 11, "")
    assert printed.err == f"lamella: {verb}: not available on {name}; run it in a Linux container or virtual machine\n"


@pytest.mark.slow
def test_every_module_imports_on_macos() -> None:
    # In a subprocess, since modules already imported here would not be imported again.
    root = Path(__file__).parents[2]
    names = [
        ".".join(path.relative_to(root / part).with_suffix("").parts).removesuffix(".__init__")
        for part in ("layers", "builder", "cli")
        for path in sorted((root / part).rglob("*.py"))
        # Frameworks import compiled modules of the platform, as the driver of Ray's jobs does; the single file's start runs
        # the command.
        if path.name not in {"__main__.py", "ray_job.py"} and not {"integrations", "node_part"} & set(path.parts)
    ]
    program = (
        # urllib asks a module of macOS for proxies when it is imported there.
        "import sys, importlib, subprocess, multiprocessing, asyncio, tempfile, shutil, urllib.request\n"
        "sys.platform = 'darwin'\n"
        f"for name in {names!r}: importlib.import_module(name)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_verbs_that_run_everywhere_start_on_windows(tmp_path: Path) -> None:
    # Modules and functions that Python lacks on Windows are removed before Lamella is imported.
    program = (
        "import sys, os, importlib, subprocess, tempfile, shutil, asyncio\n"
        "sys.platform = 'win32'\n"
        "for name in ('fcntl', 'pwd', 'grp', 'resource', 'termios'): sys.modules[name] = None\n"
        "for name in ('O_NOFOLLOW', 'O_CLOEXEC', 'O_DIRECTORY', 'geteuid', 'getuid', 'fork'): delattr(os, name)\n"
        "importlib.import_module('lamella.builder.scanning.scan')\n"
        "from lamella.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    reference = f"oci:{tmp_path}/absent:tag"
    done = subprocess.run(
        [sys.executable, "-c", program, "inspect", reference], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (
        3,
        f"lamella: {tmp_path}/absent: no such OCI layout; correct the folder of oci:FOLDER:TAG\n",
    )


def test_a_closed_pipe_ends_the_command_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    with started([sys.executable, "-m", "lamella.cli", "--version"], stdout=write, stderr=subprocess.PIPE) as process:
        os.close(write)
        _, errors = process.communicate()
    assert errors == ""
    assert process.returncode == 128 + signal.SIGPIPE


def test_an_export_to_a_pipe_without_reader_ends_like_a_unix_program(tmp_path: Path) -> None:
    publish(tmp_path / "layout", [{"opt/env/a": ""}], tag="v1")
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "lamella.cli", "export", f"oci:{tmp_path}/layout:v1", "-", "--quiet"]
    with started(
        command, stdout=write, stderr=subprocess.PIPE, env=os.environ | {"LAMELLA_STORE": str(tmp_path / "store")}
    ) as process:
        os.close(write)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize(
    ("redirected", "code", "output", "errors"),
    [
        ("tags oci:layout >&-", 0, "", ""),
        ("tags oci:layout 2>&-", 0, "Tag  ", ""),
        ("tags oci:layout <&-", 0, "Tag  ", ""),
        ("tags oci:layout <&- >&- 2>&-", 0, "", ""),
        (
            "tags oci:absent >&-",
            3,
            "",
            "lamella: {}/absent: no such OCI layout; correct the folder of oci:FOLDER:TAG\n",
        ),
        ("tags oci:absent --json >&- 2>&-", 3, "", ""),
        (
            "tags oci:layout >/dev/full",
            6,
            "",
            "lamella: the output can't be written: No space left on device; free some, or write it elsewhere\n",
        ),
        (
            "tags oci:absent --json >/dev/full",
            3,
            "",
            "lamella: {}/absent: no such OCI layout; correct the folder of oci:FOLDER:TAG\n",
        ),
        (
            "login localhost:1 -u ada <&-",
            2,
            "",
            "lamella: login: missing password; type it on a terminal, or pipe it to --password-stdin\n",
        ),
        ("tags oci:layout | true", 0, "", ""),
        ("inspect oci:layout:v1 | head -c 4", 0, "oci:", ""),
    ],
)
def test_a_closed_or_full_stream_does_not_crash_the_command(
    redirected: str, code: int, output: str, errors: str, tmp_path: Path
) -> None:
    publish(tmp_path / "layout", [{"a": ""}], tag="v1")
    done = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -m lamella.cli {redirected}"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (code, errors.format(tmp_path))
    assert done.stdout[: len(output) or None] == output


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
@pytest.mark.slow
def test_names_outside_ascii_are_read_and_shown_in_the_c_locale(locale: dict[str, str], tmp_path: Path) -> None:
    publish(tmp_path / "数据", [{"a": ""}], tag="v1")
    done = lamella("inspect", f"oci:{tmp_path}/数据:v1", **locale)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"oci:{tmp_path}/")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_unwinds_the_command_and_gives_the_shells_exit_code(number: int, code: int) -> None:
    # A registry that accepts connections and never answers: the command waits for it when the signal arrives.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command = [sys.executable, "-m", "lamella.cli", "inspect", f"127.0.0.1:{silent.getsockname()[1]}/team/envs:v1"]
        with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            connection, _ = silent.accept()
            process.send_signal(number)
            output, errors = process.communicate(timeout=60)
            connection.close()
    assert (process.returncode, output) == (code, "")
    assert errors == ("lamella: interrupted; no partial result left behind\n" if number == signal.SIGINT else "")
