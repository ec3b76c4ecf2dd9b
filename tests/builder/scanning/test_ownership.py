"""Who owns a file, when records are odd, stale, broken or missing."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

import pytest

from lamella.builder.installed.distributions import normalised
from lamella.builder.scanning.findings import blocking_findings
from lamella.builder.scanning.scan import scan
from support.installed import venv
from support.scanned import SITE, file, findings, package, paths, reasons, shipped

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return venv(tmp_path_factory.mktemp("ownership") / "env")


@pytest.fixture
def site(made: Path) -> Path:
    """site-packages of an environment that is empty again for each test."""
    for folder in (made / SITE, made / "share"):
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    return made / SITE


def recorded(content: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).decode().rstrip("=")


def dist(
    site: Path, name: str, version: str, record: str | None, *, metadata: str | None = None, kind: str = "dist-info"
) -> Path:
    folder = site / f"{name}-{version}.{kind}"
    folder.mkdir()
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" if metadata is None else metadata
    (folder / ("METADATA" if kind == "dist-info" else "PKG-INFO")).write_text(text)
    if record is not None:
        (folder / "RECORD").write_text(record)
    return folder


def write(site: Path, **files: str) -> None:
    for name, text in files.items():
        path = site / name.replace("__in__", "/").replace("__dot__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.slow
def test_a_record_may_lead_outside_quote_commas_be_absolute_and_lack_hashes(made: Path, site: Path) -> None:
    (made / "share" / "man").mkdir(parents=True, exist_ok=True)
    (made / "share" / "man" / "odd.1").write_text("")
    (made / "bin" / "odd").write_text("")
    (site / "odd").mkdir()
    for name in ("__init__.py", 'a, "b".txt', "abs.txt"):
        (site / "odd" / name).write_text("")
    record = (
        f'odd/__init__.py\r\n../../../bin/odd,,\r\n"odd/a, ""b"".txt",sha256=x,0\r\n'
        f"{made}/{SITE}/odd/abs.txt,,\r\n../../../share/man/odd.1,md5=abc,1\r\n"
    )
    dist(site, "odd", "1", record)
    scanned = scan(str(made))
    odd = {path for path in paths(package(scanned, "odd")) if "dist-info" not in path}
    assert odd == {
        f"{SITE}/odd/__init__.py",
        "bin/odd",
        f'{SITE}/odd/a, "b".txt',
        f"{SITE}/odd/abs.txt",
        "share/man/odd.1",
    }
    (made / "bin" / "odd").unlink()


def test_installed_files_txt_stands_for_a_record(made: Path, site: Path) -> None:
    (site / "old.py").write_text("")
    folder = dist(site, "old", "1", None, kind="egg-info")
    (folder / "installed-files.txt").write_text("../old.py\n../__pycache__/old.pyc\nPKG-INFO\n")
    assert f"{SITE}/old.py" in paths(package(scan(str(made)), "old"))


def test_without_a_list_a_distribution_owns_the_files_under_its_top_level_names(made: Path, site: Path) -> None:
    write(site, yaml__in____init____dot__py="", _yaml__dot__py="", other__dot__py="")
    folder = dist(site, "PyYAML", "6.0", None)
    (folder / "top_level.txt").write_text("_yaml\nyaml\n")
    found = paths(package(scan(str(made)), "pyyaml"))
    assert {f"{SITE}/yaml/__init__.py", f"{SITE}/_yaml.py"} <= found
    assert f"{SITE}/other.py" not in found


def test_an_egg_info_that_is_one_file_is_a_distribution(made: Path, site: Path) -> None:
    (site / "single-2.0-py3.11.egg-info").write_text("Metadata-Version: 1.1\nName: single\nVersion: 2.0\n")
    (site / "single.py").write_text("")
    single = package(scan(str(made)), "single")
    assert (single.version, paths(single)) == ("2.0", {f"{SITE}/single-2.0-py3.11.egg-info", f"{SITE}/single.py"})


def test_files_of_the_metadata_folder_are_owned_recorded_or_not(made: Path, site: Path) -> None:
    folder = dist(site, "meta", "1", "")
    (folder / "uv_cache.json").write_text("{}")
    assert f"{SITE}/meta-1.dist-info/uv_cache.json" in paths(package(scan(str(made)), "meta"))


def test_a_distribution_without_files_of_its_own_is_a_package(made: Path, site: Path) -> None:
    dist(site, "everything", "1", "")
    assert package(scan(str(made)), "everything").files


def test_of_two_versions_in_one_folder_the_one_whose_files_are_there_ships(made: Path, site: Path) -> None:
    write(site, two__dot__py="new")
    dist(site, "two", "1.0", f"two.py,{recorded('old')},3\n")
    dist(site, "two", "0.9", f"two.py,{recorded('new')},3\n")
    scanned = scan(str(made))
    assert package(scanned, "two").version == "0.9"
    assert f"{SITE}/two-1.0.dist-info" in reasons(scanned)
    assert not [path for path in shipped(scanned) if "two-1.0" in path]
    (found,) = findings(scanned, "duplicate")
    assert found.message == (
        f"two: installed as 0.9 and as 1.0; 0.9 ships, since the files are its own; remove {SITE}/two-1.0.dist-info"
    )


@pytest.mark.parametrize(
    ("older", "newer"),
    [("1.9", "1.10"), ("1.0rc1", "1.0"), ("1.0", "1.0.post1"), ("2024.1", "1!1.0"), ("9-odd", "1.0")],
)
def test_newest_of_two_versions_with_equally_many_files_ships(made: Path, site: Path, older: str, newer: str) -> None:
    write(site, two__dot__py="same")
    for version in (newer, older):
        dist(site, "two", version, f"two.py,{recorded('same')},4\n")
    assert package(scan(str(made)), "two").version == newer


def test_a_path_of_two_owners_ships_with_the_one_whose_bytes_it_has(made: Path, site: Path) -> None:
    write(site, shared__in__x__dot__py="of b")
    dist(site, "a", "1", f"shared/x.py,{recorded('of a')},4\n")
    dist(site, "b", "1", f"shared/x.py,{recorded('of b')},4\n")
    scanned = scan(str(made))
    assert f"{SITE}/shared/x.py" in paths(package(scanned, "b"))
    (found,) = findings(scanned, "owners")
    assert (found.severity, found.message) == (
        "warning",
        f"{SITE}/shared/x.py: claimed by b and by a; ships with b, whose record matches it",
    )
    assert not findings(scanned, "patched")


def test_a_namespace_that_two_packages_bring_with_the_same_bytes_is_a_note(made: Path, site: Path) -> None:
    write(site, ns__in____init____dot__py="pkgutil", ns__in__a__dot__py="", ns__in__b__dot__py="")
    for name in ("ns_b", "ns_a"):
        dist(site, name, "1", f"ns/__init__.py,{recorded('pkgutil')},7\nns/{name[-1]}.py,,\n")
    scanned = scan(str(made))
    assert {f"{SITE}/ns/__init__.py", f"{SITE}/ns/a.py"} <= paths(package(scanned, "ns-a"))
    assert [finding.severity for finding in findings(scanned, "owners")] == ["note"]


def test_a_file_patched_by_hand_ships_as_it_is_with_a_finding(made: Path, site: Path) -> None:
    write(site, mod__dot__py="by hand")
    dist(site, "mod", "1", f"mod.py,{recorded('as released')},11\n")
    scanned = scan(str(made))
    assert file(scanned, f"{SITE}/mod.py").digest == hashlib.sha256(b"by hand").hexdigest()
    (found,) = findings(scanned, "patched")
    assert found.message == f"{SITE}/mod.py: changed since mod 1 was installed; ships as it is"


def test_what_a_record_names_and_is_not_there_is_a_finding(made: Path, site: Path) -> None:
    dist(site, "half", "1", "half/a.py,,\nhalf/b.py,,\nhalf/__pycache__/a.cpython-311.pyc,,\n")
    (found,) = findings(scan(str(made)), "missing")
    assert found.message == f"{SITE}/half/a.py and 1 more: missing, though half 1 records it; reinstall half"


def test_a_module_that_no_package_owns_ships_with_a_finding(made: Path, site: Path) -> None:
    write(site, stray__in____init____dot__py="", stray__in__more__dot__py="")
    scanned = scan(str(made))
    (found,) = findings(scanned, "unowned")
    assert (found.severity, found.subject) == ("warning", f"{SITE}/stray")
    assert "(2 files): belongs to no package; ships with the unowned files" in found.message


@pytest.mark.parametrize("record", ["a,b\0,c\n", '"' + "x" * 200_000 + '",,\n', '"unclosed,,\n'])
def test_an_unreadable_record_is_a_finding(made: Path, site: Path, record: str) -> None:
    write(site, torn__dot__py="")
    dist(site, "torn", "1", record)
    assert package(scan(str(made)), "torn").version == "1"


@pytest.mark.parametrize(
    "metadata", ["", "Name: \nVersion: 1\n", "Version: 1\n", "not headers\0\udcff", "Name: broken\n\nVersion: 1\n"]
)
def test_broken_metadata_is_that_package_s_finding_and_no_crash(made: Path, site: Path, metadata: str) -> None:
    folder = dist(site, "broken", "1", "broken.py,,\n", metadata="")
    (folder / "METADATA").write_bytes(metadata.encode("utf-8", "surrogateescape"))
    write(site, broken__dot__py="", direct__dot__py="")
    broken = package(scan(str(made)), "broken")
    assert (broken.version, f"{SITE}/broken.py" in paths(broken)) == ("1", True)


def test_a_broken_direct_url_is_a_finding(made: Path, site: Path) -> None:
    folder = dist(site, "url", "1", "")
    (folder / "direct_url.json").write_text("{")
    (found,) = findings(scan(str(made)), "record")
    assert found.message.startswith(f"{SITE}/url-1.dist-info: direct_url.json cannot be read")


def test_what_appears_after_the_install_changes_no_package(made: Path, site: Path) -> None:
    write(site, stable__in____init____dot__py="")
    dist(site, "stable", "1", "stable/__init__.py,,\n")
    before = package(scan(str(made)), "stable")
    write(site, stable__in____pycache____in__x__dot__nbi="", stable__in____pycache____in__a__dot__pyc="")
    write(site, stable__in__fonts__dot__json="")
    scanned = scan(str(made))
    assert package(scanned, "stable") == before
    assert f"{SITE}/stable/__pycache__" in reasons(scanned)


@pytest.mark.parametrize(
    ("said", "source"),
    [
        ('{"url": "https://me:SECRET@host/x.whl", "archive_info": {}}', "https://host/x.whl"),
        (
            '{"url": "https://tok-SECRET@host/r.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}, "subdirectory": "p"}',
            "git+https://host/r.git@abc#subdirectory=p",
        ),
        (
            '{"url": "ssh://git@host/r", "vcs_info": {"vcs": "git", "requested_revision": "main"}}',
            "git+ssh://git@host/r@main",
        ),
        ('{"url": "https://host/r", "vcs_info": {"vcs": "hg"}}', "hg+https://host/r"),
        ('{"url": "file:///build/farm/x.whl", "archive_info": {}}', "file:///build/farm/x.whl"),
        ('{"url": "https://host/x?token=SECRET#sha256=0"}', "https://host/x"),
    ],
)
def test_a_package_s_source_has_no_credentials(made: Path, site: Path, said: str, source: str) -> None:
    folder = dist(site, "direct", "1", "")
    (folder / "direct_url.json").write_text(said)
    scanned = scan(str(made))
    assert package(scanned, "direct").source == source
    assert "SECRET" not in str(scanned)


def test_names_are_normalised_as_pep_503_has_it() -> None:
    assert normalised("Foo.-_Bar") == "foo-bar"


def test_requirements_are_checked_as_pip_does(made: Path, site: Path) -> None:
    base = "Metadata-Version: 2.1\nName: {}\nVersion: {}\n"
    dist(site, "a", "1", "", metadata=base.format("a", "1") + "Requires-Dist: b>=2\nRequires-Dist: c ; extra == 'x'\n")
    dist(site, "b", "1.5", "", metadata=base.format("b", "1.5") + "Requires-Dist: gone\nRequires-Python: <3\n")
    dist(site, "d", "1", "", metadata=base.format("d", "1") + "Requires-Dist: e; python_version < '3'\n")
    said = {(finding.severity, finding.message) for finding in findings(scan(str(made)), "requires")}
    assert {message for severity, message in said if severity == "error"} == {
        "b 1.5 requires gone, which is not installed; install it"
    }
    assert ("warning", "a 1 requires b>=2, but 1.5 is installed") in said
    assert len(said) == 3


def test_pip_s_configuration_in_the_environment_ships_only_without_credentials(made: Path, site: Path) -> None:
    conf = made / "pip.conf"
    conf.write_text("[global]\nindex-url = https://me:CANARY@host/simple\n")
    scanned = scan(str(made))
    assert ("pip.conf" in reasons(scanned), "pip.conf" in shipped(scanned)) == (True, False)
    assert [finding.subject for finding in findings(scanned, "secret")] == ["pip.conf"]
    conf.write_text("[global]\nindex-url = https://host/simple\n")
    assert "pip.conf" in shipped(scan(str(made)))
    conf.unlink()


def test_odd_files_are_scanned(made: Path, site: Path) -> None:
    names = ["empty", "ünï", "n" * 255, "Case.txt", "case.txt", "tab\there"]
    for name in names:
        (site / name).write_text("")
    (site / "sparse").touch()
    scanned = scan(str(made))
    assert {f"{SITE}/{name}" for name in names} <= shipped(scanned)


def test_a_socket_or_a_fifo_is_left_out(made: Path, site: Path) -> None:
    import os

    os.mkfifo(site / "pipe")
    assert reasons(scan(str(made)))[f"{SITE}/pipe"] == "neither a file, a folder nor a link"


def test_a_name_that_is_not_utf_8_is_kept_as_it_is(made: Path, site: Path) -> None:
    import os

    with open(os.fsencode(str(site)) + b"/\xff.txt", "wb"):
        pass
    assert os.fsdecode(f"{SITE}/".encode() + b"\xff.txt") in shipped(scan(str(made)))


def test_links_inside_stay_relative_and_links_out_of_the_environment_are_left_out(
    made: Path, site: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "data.txt").write_text("outside")
    (made / "share").mkdir(exist_ok=True)
    (site / "inner.txt").write_text("")
    (site / "absolute").symlink_to(site / "inner.txt")
    (site / "outside.txt").symlink_to(tmp_path / "out" / "data.txt")
    (made / "share" / "folder").symlink_to(tmp_path / "out")
    (site / "chain").symlink_to("outside.txt")
    (site / "gone").symlink_to(tmp_path / "gone")
    scanned = scan(str(made))
    assert file(scanned, f"{SITE}/absolute").target == "inner.txt"
    omitted = reasons(scanned)
    assert omitted[f"{SITE}/outside.txt"] == omitted["share/folder"] == "a link out of the environment"
    assert omitted[f"{SITE}/chain"] == "a link to a file that is left out (a link out of the environment)"
    assert omitted[f"{SITE}/gone"] == "a broken link"
    assert any("gone: left out, a broken link to" in finding.message for finding in findings(scanned, "links"))


def test_folders_of_byte_code_that_virtualenv_records_are_not_missing(made: Path, site: Path) -> None:
    write(site, odd__in____init____dot__py="")
    dist(site, "odd", "1", "odd/__init__.py,,\nodd/__pycache__,,\nodd-1.dist-info/__pycache__,,\nodd/gone.py,,\n")
    (found,) = findings(scan(str(made)), "missing")
    assert found.message.startswith(f"{SITE}/odd/gone.py: missing")


def test_findings_of_a_severity_and_of_strict_packages_block_a_push(made: Path, site: Path) -> None:
    base = "Metadata-Version: 2.1\nName: {}\nVersion: 1\n"
    dist(site, "lacks", "1", "", metadata=base.format("lacks") + "Requires-Dist: gone\n")
    write(site, stray__dot__py="")
    scanned = scan(str(made))
    assert [finding.kind for finding in blocking_findings(scanned, "error")] == ["requires"]
    assert {finding.kind for finding in blocking_findings(scanned, "warning")} == {"requires", "unowned"}
    assert not blocking_findings(scanned)
    assert [finding.subject for finding in blocking_findings(scanned, strict=["Lacks"])] == ["lacks"]
    assert [finding.message for finding in blocking_findings(scanned, strict=["torch"])] == [
        "torch: not in the environment, and must ship; install it"
    ]


def test_a_flag_for_python_in_a_script_is_not_reported_as_a_change(made: Path, site: Path) -> None:
    """pipx writes `-E` into the scripts that pip made."""
    write(site, tool__dot__py="")
    script = "#!{python}{flag}\nimport sys\nfrom tool import main\nsys.exit(main())\n"
    python = f"{made}/bin/python"
    digest = recorded(script.format(python=python, flag=""))
    dist(site, "tool", "1", f"tool.py,,\n../../../bin/tool,{digest},1\n")
    (made / "bin/tool").write_text(script.format(python=python, flag=" -E"))
    assert not findings(scan(str(made)), "patched")
    (made / "bin/tool").write_text(script.format(python=python, flag=" -E") + "print()\n")
    (found,) = findings(scan(str(made)), "patched")
    assert found.message == "bin/tool: changed since tool 1 was installed; ships as it is"
    (made / "bin/tool").unlink()
