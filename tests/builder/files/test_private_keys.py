"""Private keys are recognised by content, and text about them is not one."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from lamella.builder.files.private_keys import MOST, holds_private_key, is_private_key
from lamella.builder.files.secrets import KEY
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from support.engines import missing
from support.installed import install, venv, wheel
from support.scanned import SITE, findings, reasons, shipped

if TYPE_CHECKING:
    from pathlib import Path

BODY = base64.b64encode(bytes(range(96))).decode()
PEM = f"-----BEGIN {{}}PRIVATE KEY-----\n{BODY}\n-----END {{}}PRIVATE KEY-----\n"
KEYS = {
    **{f"PEM {kind}": PEM.format(kind, kind) for kind in ("", "RSA ", "EC ", "DSA ", "ENCRYPTED ", "OPENSSH ")},
    "PEM with a header": f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES,0\n\n{BODY}\n",
    "PEM with Windows line ends": PEM.format("", "").replace("\n", "\r\n"),
    "PEM after a certificate": f"-----BEGIN CERTIFICATE-----\n{BODY}\n-----END CERTIFICATE-----\n" + PEM.format("", ""),
    "a block in YAML": f"tls:\n  key: |\n    -----BEGIN PRIVATE KEY-----\n    {BODY}\n",
    "PGP": f"-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 1\n\n{BODY}\n",
    "cosign": PEM.format("ENCRYPTED SIGSTORE ", "ENCRYPTED SIGSTORE "),
    "SSH2": f"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment: x\n{BODY}\n",
    "PuTTY": "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n",
    "age": "# created: 2024\nAGE-SECRET-KEY-1" + "QPZRY9X8GF" * 5 + "\n",
    "WireGuard": "[Interface]\nPrivateKey = " + base64.b64encode(bytes(32)).decode() + "\n",
    "a service account": json.dumps({"type": "service_account", "private_key": PEM.format("", "")}),
    "a JSON Web Key": json.dumps({"d": "x" * 43, "kty": "EC", "crv": "P-256"}, indent=1),
    "AWS credentials": "[default]\naws_access_key_id = A\naws_secret_access_key = " + "wJalrXUtnF" * 4 + "\n",
    "minisign": "untrusted comment: minisign encrypted secret key\nRWRTY0Iy\n",
}


@pytest.mark.parametrize("kind", KEYS)
def test_private_key_is_recognised_under_any_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(KEYS[kind], newline="")
    assert is_private_key(path.name, path.stat().st_size, str(path))


@pytest.mark.parametrize("kind", ["PEM OPENSSH ", "PuTTY"])
def test_private_key_is_recognised_under_the_name_of_a_module(kind: str) -> None:
    assert holds_private_key(KEYS[kind].encode(), code=True)


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
@pytest.mark.slow
def test_key_of_openssh_is_recognised(tmp_path: Path, kind: str) -> None:
    if not shutil.which("ssh-keygen"):
        missing("ssh-keygen is not here: install openssh-client")
    path = tmp_path / "key.txt"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
    public = tmp_path / "key.txt.pub"
    assert is_private_key(path.name, path.stat().st_size, str(path))
    assert not is_private_key(public.name, public.stat().st_size, str(public))


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n",
        f"-----BEGIN PUBLIC KEY-----\n{BODY}\n",
        f"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{BODY}\n",
        "A PEM file begins with -----BEGIN PRIVATE KEY----- and its body.\n",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n",
        "aws_secret_access_key = ${SECRET}\n",
        json.dumps({"kty": "EC", "crv": "P-256", "x": "x" * 43}),
    ],
)
def test_text_about_keys_ships(text: str) -> None:
    assert not holds_private_key(text.encode())


def test_source_code_with_a_key_in_it_ships() -> None:
    source = f'"""Tests."""\nKEY = """\n{PEM.format("", "")}"""\naws_secret_access_key = "{BODY}"\n'
    assert not holds_private_key(source.encode(), code=True)


def test_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_text(PEM.format("", "") + "x" * MOST)
    assert not is_private_key(path.name, path.stat().st_size, str(path))


@pytest.mark.slow
def test_private_keys_ship_only_in_packages_of_an_index(tmp_path: Path) -> None:
    environment = venv(tmp_path / "env")
    key = PEM.format("", "")
    channel = tmp_path / "index"
    wheel(channel, "public", files={"public/__init__.py": "", "public/test_key.txt": key})
    install(environment, "public", options=["--find-links", str(channel)])
    direct = wheel(tmp_path, "direct", files={"direct/__init__.py": "", "direct/notes.txt": key})
    install(environment, direct)
    site = environment / SITE
    (site / "stray").mkdir()
    (site / "stray" / "notes.txt").write_text(key)
    (site / "stray" / "again.txt").symlink_to("notes.txt")
    work = tmp_path / "work"
    work.mkdir()
    (work / "app.py").touch()
    (work / "notes.txt").write_text(key)
    scanned = scan(str(environment), ScanOptions(local=str(work)))
    assert f"{SITE}/public/test_key.txt" in shipped(scanned)
    hidden = {f"{SITE}/{name}" for name in ("direct/notes.txt", "stray/notes.txt", "notes.txt")}
    assert {each.subject for each in findings(scanned, "secret")} == hidden
    assert {reasons(scanned)[path] for path in hidden} == {KEY}
    assert not shipped(scanned) & {*hidden, f"{SITE}/stray/again.txt"}
