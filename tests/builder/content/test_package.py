from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import subprocess
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Literal

import pytest

from lamella.builder.content.entry import read_entry
from lamella.builder.content.package import RPATH, entries
from lamella.builder.content.rpath import patchelf
from lamella.builder.errors import CannotBuild
from lamella.builder.scanning.scan import scan
from support.engines import need
from support.installed import install, venv, wheel
from support.packages import SITE, environment, package
from support.scanned import package as one

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.builder.content.entry import Entry
    from lamella.builder.environment import Environment, Package

INFO = f"{SITE}/tool-1.0.dist-info"
ENTRY_POINTS = "[console_scripts]\ntool = tool:main\n"
PIP = (
    "#!{python}\n# -*- coding: utf-8 -*-\nimport re\nimport sys\nfrom tool import main\nif __name__ == '__main__':\n"
    "    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])\n    sys.exit(main())\n"
)
UV = (
    "#!/bin/sh\n'''exec' \"/x y/python\" \"$0\" \"$@\"\n' '''\nimport sys\nfrom tool import main\n"
    'if __name__ == "__main__":\n    if sys.argv[0].endswith("-script.pyw"):\n        sys.argv[0] = sys.argv[0][:-11]\n'
    '    elif sys.argv[0].endswith(".exe"):\n        sys.argv[0] = sys.argv[0][:-4]\n    sys.exit(main())\n'
)
PIPS_OWN = "import sys\nfrom pip._internal import main\nif __name__ == '__main__':\n    sys.exit(main())\n"


def shipped(env: Environment, one: Package, image_prefix: str = "/opt/env") -> dict[str, Entry]:
    made = entries(env, one, image_prefix)
    assert [entry.path for entry in made] == sorted(entry.path for entry in made)
    return {entry.path.removeprefix(f"{image_prefix[1:]}/"): entry for entry in made}


def text(entry: Entry) -> str:
    content = b"".join(read_entry(entry))
    assert hashlib.sha256(content).hexdigest() == entry.digest
    assert len(content) == entry.size
    return content.decode()


def installed(prefix: Path, **changes: str) -> dict[str, Entry]:
    """One wheel as some installer left it; `changes` are what that installer does its own way."""
    files = {
        f"{SITE}/tool.py": "def main(): return 0\n",
        f"{INFO}/METADATA": "Name: tool\n",
        f"{INFO}/entry_points.txt": ENTRY_POINTS,
        f"{INFO}/RECORD": changes.pop("record", "whatever"),
        "bin/tool*": changes.pop("script", PIP.format(python=f"{prefix}/bin/python")),
    }
    for name, content in changes.items():
        files[f"{INFO}/{name.replace('__', '.')}"] = content
    tool = package(prefix, "tool", files, records=INFO)
    return shipped(environment(prefix, tool), tool)


def test_what_installers_write_differently_ships_the_same(tmp_path: Path) -> None:
    by_pip = installed(tmp_path / "a", INSTALLER="pip\n", REQUESTED="", record="a,,\n")
    by_uv = installed(
        tmp_path / "elsewhere/b",
        INSTALLER="uv",
        uv_cache__json="{}",
        script=UV,
    )
    assert {path: entry.digest for path, entry in by_pip.items()} == {
        path: entry.digest for path, entry in by_uv.items()
    }
    assert text(by_pip["bin/tool"]).startswith("#!/opt/env/bin/python\nimport sys\nfrom tool import main\n")
    assert by_pip["bin/tool"].mode == 0o755
    assert not {f"{INFO}/INSTALLER", f"{INFO}/REQUESTED"} & set(by_pip)


def test_record_names_what_ships_with_its_hash_and_size(tmp_path: Path) -> None:
    made = installed(tmp_path)
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(text(made[f"{INFO}/RECORD"])))}
    assert set(rows) == {
        "tool.py",
        "tool-1.0.dist-info/METADATA",
        "tool-1.0.dist-info/entry_points.txt",
        "tool-1.0.dist-info/RECORD",
        "../../../bin/tool",
    }
    script = made["bin/tool"]
    hashed = urlsafe_b64encode(bytes.fromhex(script.digest)).decode().rstrip("=")
    assert rows["../../../bin/tool"] == [f"sha256={hashed}", str(script.size)]
    assert rows["tool-1.0.dist-info/RECORD"] == ["", ""]


@pytest.mark.parametrize(
    ("written", "ships"),
    [
        (
            {"url": "https://me:secret@host/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc", "x": 1}},
            {"url": "https://host/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
        ),
        (
            {"url": "ssh://git@host/x.git", "subdirectory": "a", "vcs_info": {"vcs": "git"}},
            {"url": "ssh://git@host/x.git", "subdirectory": "a", "vcs_info": {"vcs": "git"}},
        ),
        (
            {
                "url": "https://token@host/x.whl?sig=secret",
                "archive_info": {"hash": "sha256=ab", "hashes": {"sha256": "ab"}},
            },
            {"url": "https://host/x.whl", "archive_info": {"hashes": {"sha256": "ab"}}},
        ),
        (
            {"url": "https://host/x.whl", "archive_info": {"hash": "sha256=ab"}},
            {"url": "https://host/x.whl", "archive_info": {"hashes": {"sha256": "ab"}}},
        ),
        ({"url": "file:///home/me/x.whl", "archive_info": {}}, None),
        ({"url": "file:///home/me/project", "dir_info": {"editable": True}}, None),
        ({"url": 3}, None),
        ([], None),
    ],
)
def test_direct_url_ships_without_secrets_and_local_paths(tmp_path: Path, written: object, ships: object) -> None:
    made = installed(tmp_path, direct_url__json=json.dumps(written))
    path = f"{INFO}/direct_url.json"
    assert (json.loads(text(made[path])) if path in made else None) == ships


def test_a_password_in_direct_url_does_not_change_what_ships(tmp_path: Path) -> None:
    url = '{{"url": "https://u:{}@host/x.git", "vcs_info": {{"vcs": "git", "commit_id": "abc"}}}}'
    made = [installed(tmp_path / word, direct_url__json=url.format(word)) for word in ("old", "new")]
    assert made[0][f"{INFO}/RECORD"].digest == made[1][f"{INFO}/RECORD"].digest


def test_the_prefix_is_rewritten_and_listed_for_relocation(tmp_path: Path) -> None:
    thing = package(
        tmp_path,
        "thing",
        {
            "lib/pkgconfig/x.pc": f"prefix={tmp_path}\n",
            "lib/plain.txt": "no prefix",
            "bin/run*": f"#!{tmp_path}/bin/python3\nx",
        },
    )
    made = shipped(environment(tmp_path, thing), thing, "/srv/app")
    assert text(made["lib/pkgconfig/x.pc"]) == "prefix=/srv/app\n"
    assert text(made["bin/run"]) == "#!/srv/app/bin/python\nx"
    listed = json.loads(text(made[".lamella/relocate/pypi-thing.json"]))
    assert listed == {
        "prefix": "/srv/app",
        "files": [{"kind": "text", "path": "bin/run"}, {"kind": "text", "path": "lib/pkgconfig/x.pc"}],
    }


def test_a_package_without_the_prefix_has_no_relocation_list(tmp_path: Path) -> None:
    thing = package(tmp_path, "thing", {"lib/plain.txt": "no prefix"})
    assert set(shipped(environment(tmp_path, thing), thing)) == {"lib/plain.txt"}


def test_a_conda_packages_binary_is_padded_and_anothers_is_left_alone(tmp_path: Path) -> None:
    content = b"\x7fELF\0" + bytes(tmp_path) + b"/lib" + bytes(40)
    for origin in ("conda", "pypi"):
        thing = package(tmp_path, f"thing-{origin}", {f"lib/{origin}.so": content}, origin=origin)
        entry = shipped(environment(tmp_path, thing), thing)[f"lib/{origin}.so"]
        expected = (b"\x7fELF\0/opt/env/lib").ljust(len(content), b"\0") if origin == "conda" else content
        assert b"".join(read_entry(entry)) == expected


NATIVE = {
    "name": "zlib",
    "version": "1.3",
    "build": "h1_0",
    "build_number": 0,
    "depends": ["libgcc >=13"],
    "license": "Zlib",
}
NOARCH = NATIVE | {"noarch": "python"}


def conda_layer(prefix: Path, said: dict[str, object], files: dict[str, str | bytes] | None = None) -> dict[str, Entry]:
    """zlib as some tool recorded and linked it."""
    record = {"conda-meta/zlib-1.3-h1_0.json": json.dumps(said)}
    zlib = package(prefix, "zlib", {"lib/libz.so": "z", **record, **(files or {})}, origin="conda")
    return shipped(environment(prefix, zlib), zlib)


@pytest.mark.parametrize(
    ("said", "spelled"),
    [
        (NATIVE, {"channel": "conda-forge", "url": "https://conda.host/t/tk-one/c/linux-64/zlib.conda"}),
        (NATIVE, {"channel": "me:CANARY@conda.corp/t/CANARY/c", "url": "conda.corp/t/CANARY"}),
        (NATIVE, {"channel": "https://mirror/t/CANARY", "schannel": "CANARY"}),
        (NATIVE, {"channel": "file:///home/me/channel", "url": "file:///home/me/channel/zlib.tar.bz2"}),
        (NATIVE, {"arch": "x86_64", "platform": "linux", "subdir": "linux-64"}),
        (NATIVE, {"arch": None, "platform": None, "license_family": "Other", "track_features": "", "features": None}),
        (NATIVE, {"timestamp": 1700000000000, "size": 9, "md5": "a", "sha256": "b", "fn": "zlib-1.3-h1_0.tar.bz2"}),
        (NATIVE, {"build": None, "build_string": "h1_0", "constrains": []}),
        (NATIVE, {"requested_spec": "None", "requested_specs": ["https://me:CANARY@host/c::zlib"], "auth": "CANARY"}),
        (NATIVE, {"extracted_package_dir": "/home/me/pkgs/zlib", "link": {"source": "/home/me/pkgs/zlib", "type": 1}}),
        (NATIVE, {"paths_data": {"paths": [{"_path": "lib/libz.so", "sha256_in_prefix": "CANARY"}]}}),
        (NATIVE, {"depends": ["https://me:CANARY@host/t/CANARY/c::libgcc >=13"]}),
        (NATIVE, {"depends": ["libgcc[url='https://host/t/CANARY/libgcc.conda'] >=13"]}),
        (NOARCH, {"subdir": "linux-64"}),
        (NOARCH, {"subdir": "noarch", "package_type": "noarch_python"}),
    ],
)
def test_one_conda_package_ships_the_same_from_any_tools_record(
    tmp_path: Path, said: dict[str, object], spelled: dict[str, object]
) -> None:
    """conda, mamba, micromamba and pixi spell a record each in its own way; nothing of where it came from ships."""
    path = "conda-meta/zlib-1.3-h1_0.json"
    made = [text(conda_layer(tmp_path / name, each)[path]) for name, each in (("a", said), ("b", said | spelled))]
    assert made[0] == made[1]
    assert not [word for word in ("CANARY", "tk-one", "/home/", "host", "None") if word in made[1]]
    shown = json.loads(made[0])
    assert shown["files"] == ["lib/libz.so"]
    assert (shown["depends"], shown["license"], shown.get("subdir")) == (
        ["libgcc >=13"],
        "Zlib",
        "noarch" if "noarch" in said else None,
    )


BY_TEMPLATE = (
    "#!{python}\n{coding}import re\nimport sys\n\nfrom pure.cli import main\n\nif __name__ == '__main__':\n"
    "{indent}sys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])\n{indent}sys.exit(main.run())\n"
)


def test_scripts_that_conda_makes_of_entry_points_are_one_text_whichever_tool_made_them(tmp_path: Path) -> None:
    made = []
    for name, coding, indent in (
        ("conda", "# -*- coding: utf-8 -*-\n", "    "),
        ("rattler", "# -*- coding: utf-8 -*-\n", "\t"),
        ("micromamba", "", "    "),
    ):
        script = BY_TEMPLATE.format(python=tmp_path / name / "bin/python3.11", coding=coding, indent=indent)
        layer = conda_layer(tmp_path / name, dict(NOARCH), {"bin/pure*": script, "bin/own*": "#!/bin/sh\nimport re\n"})
        assert text(layer["bin/own"]) == "#!/bin/sh\nimport re\n"
        made.append(
            (text(layer["bin/pure"]), layer["bin/pure"].mode, layer[".lamella/relocate/conda-zlib.json"].digest)
        )
    assert made[0] == made[1] == made[2]
    assert made[0][0].startswith("#!/opt/env/bin/python\nimport sys\nfrom pure.cli import main\n")
    assert "sys.exit(main.run())" in made[0][0]


def test_a_conda_package_s_own_script_keeps_its_text(tmp_path: Path) -> None:
    script = f"#!{tmp_path}/bin/python\nimport re\nimport sys\nfrom pure import main\nprint(re)\nsys.exit(main())\n"
    layer = conda_layer(tmp_path, dict(NATIVE), {"bin/own*": script})
    assert text(layer["bin/own"]) == script.replace(f"{tmp_path}", "/opt/env")


@pytest.mark.slow
def test_a_wheel_s_scripts_and_headers_are_the_same_by_any_installer_in_any_kind_of_prefix(tmp_path: Path) -> None:
    """uv makes scripts executable, pip leaves them; a venv has a folder of its own for headers."""
    files: dict[str, str | bytes] = {
        "tool.py": "",
        "{data}/scripts/of-python": "#!python\nprint()\n",
        "{data}/scripts/of-sh": "#!/bin/sh\n",
        "{data}/scripts/of-elf": b"\x7fELF",
        "{data}/headers/tool.h": "",
        "{data}/data/share/tool/run.sh": "#!/bin/sh\n",
    }
    made = []
    for by in ("pip", "uv"):
        prefix = install(venv(tmp_path / by), wheel(tmp_path, "tool", files=files), by=by)
        scanned = scan(str(prefix))
        layer = shipped(scanned, one(scanned, "tool"))
        made.append({path: (entry.mode, entry.digest) for path, entry in layer.items()})
    assert made[0] == made[1]
    assert {path: mode for path, (mode, _) in made[0].items() if path.startswith(("bin/", "share/", "include/"))} == {
        "bin/of-python": 0o755,
        "bin/of-sh": 0o755,
        "bin/of-elf": 0o755,
        "share/tool/run.sh": 0o644,
        f"include/{SITE.split('/')[1]}/tool/tool.h": 0o644,
    }


def test_headers_are_in_the_folder_where_a_plain_prefix_has_them(tmp_path: Path) -> None:
    """A venv has a folder of its own for headers, and ships as a plain prefix."""
    python = SITE.split("/")[1]
    made = []
    for name, folder in (("venv", f"include/site/{python}"), ("conda", f"include/{python}")):
        prefix = tmp_path / name
        files: dict[str, str | bytes] = {
            f"{folder}/tool/tool.h": f"// {prefix}\n",
            f"{folder}/tool/other.h": "->tool.h",
            f"{folder}/tool/lib": "->" + "../" * (folder.count("/") + 2) + "lib",
            f"{INFO}/RECORD": "",
        }
        tool = package(prefix, "tool", files, records=INFO)
        layer = shipped(environment(prefix, tool), tool)
        made.append({path: (entry.digest, entry.target) for path, entry in layer.items()})
    assert made[0] == made[1]
    assert made[0][f"include/{python}/tool/lib"] == ("", "../../../lib")


@pytest.mark.parametrize("name", ["METADATA", "PKG-INFO"])
def test_requirements_by_url_ship_without_credentials_but_for_an_index_s(tmp_path: Path, name: str) -> None:
    said = (
        "Name: tool\nRequires-Dist: foo @ git+https://CANARY@host/foo.git@v1 ; python_version > '3'\n"
        "Requires-Dist: bar @ https://host/bar.whl?token=CANARY\nRequires-Dist: baz>=1\n\nSee https://you:@host/\n"
    )
    for origin, source, cleaned in (
        ("pypi", "", False),
        ("pypi", "https://host/x", True),
        ("local", "file:///x", True),
    ):
        prefix = tmp_path / f"{origin}{cleaned}"
        tool = package(prefix, "tool", {f"{INFO}/{name}": said}, records=INFO, origin=origin)  # type: ignore[arg-type]
        tool = dataclasses.replace(tool, source=source)
        shown = text(shipped(environment(prefix, tool), tool)[f"{INFO}/{name}"])
        expected = (
            "Name: tool\nRequires-Dist: foo @ git+https://host/foo.git@v1 ; python_version > '3'\n"
            "Requires-Dist: bar @ https://host/bar.whl\nRequires-Dist: baz>=1\n\nSee https://you:@host/\n"
        )
        assert shown == (expected if cleaned else said)


def test_legacy_requirements_ship_without_credentials_in_every_section(tmp_path: Path) -> None:
    egg = f"{SITE}/tool.egg-info"
    files: dict[str, str | bytes] = {
        f"{egg}/requires.txt": "a @ https://CANARY@h/a\n\n[extra]\nb @ https://CANARY@h/b\n"
    }
    tool = package(tmp_path, "tool", files, origin="local", records=egg)
    shown = text(shipped(environment(tmp_path, tool), tool)[f"{egg}/requires.txt"])
    assert shown == "a @ https://h/a\n\n[extra]\nb @ https://h/b\n"


@pytest.mark.parametrize("name", ["direct_url.json", "provenance_url.json"])
@pytest.mark.parametrize("origin", ["local", "unowned"])
def test_vendored_metadata_keeps_its_source_without_credentials(
    tmp_path: Path, name: str, origin: Literal["local", "unowned"]
) -> None:
    path = f"{SITE}/app/vendor/foo-1.0.dist-info/{name}"
    said = {"url": "https://me:CANARY@host/foo.whl", "archive_info": {"hashes": {"sha256": "ab"}}}
    app = package(tmp_path, "app", {path: json.dumps(said)}, origin=origin)
    shown = json.loads(text(shipped(environment(tmp_path, app), app)[path]))
    assert shown == said | {"url": "https://host/foo.whl"}


def test_which_mirror_a_package_came_from_does_not_ship(tmp_path: Path) -> None:
    said = json.dumps({"url": "https://me:CANARY@mirror/tool.whl", "archive_info": {}})
    without, with_it = installed(tmp_path / "a"), installed(tmp_path / "b", provenance_url__json=said)
    assert {path: entry.digest for path, entry in without.items()} == {
        path: entry.digest for path, entry in with_it.items()
    }


def test_pips_scripts_are_the_same_from_any_installer(tmp_path: Path) -> None:
    info = f"{SITE}/pip-26.0.dist-info"
    points = "[console_scripts]\npip = pip._internal:main\npip3 = pip._internal:main\n"
    script = f"#!/usr/bin/python3\n{PIPS_OWN}"
    made = []
    for number, names in enumerate((["pip", "pip3"], ["pip", "pip3", "pip3.9"], ["pip3", "pip3.12"])):
        prefix = tmp_path / str(number)
        files = {f"{info}/entry_points.txt": points, f"{info}/RECORD": ""} | {f"bin/{name}*": script for name in names}
        pip = package(prefix, "pip", files, version="26.0", records=info)
        made.append({path: entry.digest for path, entry in shipped(environment(prefix, pip), pip).items()})
    assert made[0] == made[1] == made[2]


def test_a_symlink_ships_as_it_is(tmp_path: Path) -> None:
    thing = package(tmp_path, "thing", {"lib/a.so.1": "a", "lib/a.so": "->a.so.1"})
    entry = shipped(environment(tmp_path, thing), thing)["lib/a.so"]
    assert (entry.target, entry.mode, entry.digest) == ("a.so.1", 0o777, "")


def test_a_name_that_means_deletion_in_an_image_is_refused(tmp_path: Path) -> None:
    thing = package(tmp_path, "thing", {"lib/.wh.x": "a"})
    with pytest.raises(CannotBuild, match=r"lib/\.wh\.x of thing: cannot be in an image"):
        shipped(environment(tmp_path, thing), thing)


def test_the_interpreter_looks_for_its_libraries_beside_itself(tmp_path: Path) -> None:
    """And what it loads has no run path of its own into folders of the machine that built it."""
    gcc = need("gcc")
    source = tmp_path / "x.c"
    source.write_text("int main(void) { return 0; }\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    subprocess.run([gcc, source, "-o", tmp_path / "bin/python3.12", "-Wl,-rpath,/build/lib"], check=True)
    subprocess.run([gcc, source, "-shared", "-o", tmp_path / "lib/m.so", "-Wl,-rpath,/build/lib:$ORIGIN/x"], check=True)
    python = package(
        tmp_path,
        "python",
        {
            "bin/python3.12*": (tmp_path / "bin/python3.12").read_bytes(),
            "lib/m.so*": (tmp_path / "lib/m.so").read_bytes(),
        },
        origin="python",
    )
    made = shipped(environment(tmp_path, python), python)
    for path, expected, tag in (("bin/python3.12", RPATH, "RPATH"), ("lib/m.so", "$ORIGIN/x", "RPATH")):
        out = tmp_path / "out"
        out.write_bytes(b"".join(read_entry(made[path])))
        shown = subprocess.run([patchelf(), "--print-rpath", out], check=True, capture_output=True, text=True).stdout
        assert shown == f"{expected}\n"
        assert (
            f"({tag})"
            in subprocess.run([need("readelf"), "-d", out], check=True, capture_output=True, text=True).stdout
        )


@pytest.mark.parametrize("flags", ["", " -I"])
@pytest.mark.parametrize("edit", ["", "import site\n"])
def test_a_changed_script_of_an_entry_point_ships_with_its_changes(tmp_path: Path, flags: str, edit: str) -> None:
    first, _, body = PIP.format(python=f"{tmp_path}/bin/python3").partition("\n")
    shown = text(installed(tmp_path, script=f"{first}{flags}\n{edit}{body}")["bin/tool"])
    canonical = text(installed(tmp_path)["bin/tool"])
    assert shown == (f"#!/opt/env/bin/python{flags}\n{edit}{body}" if flags or edit else canonical)


def test_a_changed_pip_ships_beside_the_names_that_pip_has(tmp_path: Path) -> None:
    info = f"{SITE}/pip-26.0.dist-info"
    files = {
        f"{info}/entry_points.txt": "[console_scripts]\npip = pip._internal:main\n",
        "bin/pip*": f"#!/usr/bin/python3\n{PIPS_OWN}",
        "bin/pip3.9*": f"#!/usr/bin/python3 -I\n{PIPS_OWN}",
    }
    pip = package(tmp_path, "pip", files, version="26.0", records=info)
    made = shipped(environment(tmp_path, pip), pip)
    assert text(made["bin/pip3.9"]) == f"#!/opt/env/bin/python -I\n{PIPS_OWN}"
    assert text(made["bin/pip"]) == text(made["bin/pip3"]) == f"#!/opt/env/bin/python\n{PIPS_OWN}"
