"""containerd's hosts.toml: the registry itself and its mirrors."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import LayersError, Unreachable
from lamella.layers.registry.hosts import Host, Hosts, hosts_of
from lamella.layers.registry.login import login
from lamella.layers.registry.repository import Registry
from lamella.layers.registry.retry import Patience
from lamella.layers.settings.trust import Trust
from support.authority import Authority, authority
from support.homes import fresh_home
from support.published import blob, push_image
from support.registry_simulator import PASSWORD, USER, Fault, RegistrySimulator

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fresh_home(tmp_path, monkeypatch)
    return tmp_path / "certs.d"


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"))


def configure(hosts: Path, registry: str, text: str) -> Path:
    folder = hosts / registry
    folder.mkdir(parents=True)
    (folder / "hosts.toml").write_text(text)
    return folder


def mirrors_of(registry: str, hosts_dir: str) -> tuple[Host, ...]:
    return hosts_of(registry, hosts_dir).mirrors


def test_mirrors_are_read_as_containerd_reads_them(hosts: Path) -> None:
    configure(
        hosts,
        "docker.io",
        """
server = "https://registry-1.docker.io"

[host."https://cache.example:5000"]
  capabilities = ["pull", "resolve"]
  ca = "cache.crt"
  [host."https://cache.example:5000".header]
    X-Team = "envs"
    X-Several = ["one", "two"]

[host."http://localhost:30020"]
  capabilities = ["pull"]
  skip_verify = true

[host."https://whole.example/prefix"]
  override_path = true

[host."https://push.example"]
  capabilities = ["push"]
""",
    )
    assert mirrors_of("docker.io", str(hosts)) == (
        Host(
            "https://cache.example:5000/v2",
            True,
            (f"{hosts}/docker.io/cache.crt",),
            (),
            True,
            (("X-Team", "envs"), ("X-Several", "one, two")),
        ),
        Host("http://localhost:30020/v2", False, verify=False),
        Host("https://whole.example/prefix"),
    )
    assert mirrors_of("ghcr.io", str(hosts)) == ()


def test_the_default_counts_for_registries_without_a_folder(hosts: Path) -> None:
    configure(hosts, "_default", '[host."http://localhost:30020"]\n')
    configure(hosts, "ghcr.io", "")
    assert mirrors_of("quay.io", str(hosts)) == (Host("http://localhost:30020/v2"),)
    assert mirrors_of("ghcr.io", str(hosts)) == ()


@pytest.mark.parametrize("server", ["https://docker.io", "https://registry-1.docker.io/", "registry-1.docker.io/v2"])
def test_the_registry_itself_is_not_a_mirror(hosts: Path, server: str) -> None:
    configure(hosts, "docker.io", f'server = "{server}"\n')
    assert mirrors_of("docker.io", str(hosts)) == ()


def test_the_server_of_a_file_is_the_last_mirror(hosts: Path) -> None:
    own = 'server = "https://cache.example/"\ncapabilities = ["pull"]\nskip_verify = true\n'
    configure(hosts, "ghcr.io", f'{own}[host."http://localhost:30020"]\n')
    assert mirrors_of("ghcr.io", str(hosts)) == (
        Host("http://localhost:30020/v2"),
        Host("https://cache.example/v2", False, verify=False),
    )


@pytest.mark.parametrize(
    "text",
    [
        "host = [",
        "host = 5",
        "server = 5",
        'server = "https://[bad"',
        '[host."x"]\nca = 5\n',
        '[host."x:y"]\n',
        '[host."x".header]\na = "b\\nc"\n',
        '[host."x".header]\n"a b" = "c"\n',
        '[host."x".header]\na = [5]\n',
    ],
)
def test_an_invalid_file_is_reported(hosts: Path, text: str) -> None:
    configure(hosts, "ghcr.io", text)
    with pytest.raises(
        LayersError, match=r"hosts\.toml: not a valid containerd hosts\.toml; correct it, or move it away"
    ):
        mirrors_of("ghcr.io", str(hosts))


# The registry itself


OWN = """
ca = "own.crt"
client = [["own.cert", "own.key"], "both.pem", ["both.pem", ""]]
skip_verify = true
[header]
  X-Team = "envs"
"""


@pytest.mark.parametrize(
    "text",
    [
        OWN,
        f'server = "https://ghcr.io"\n{OWN}',
        f'server = "GHCR.io/v2/"\n{OWN}',
        '[host."https://ghcr.io"]\n' + OWN.replace("[header]", '[host."https://ghcr.io".header]'),
    ],
    ids=["outermost", "server", "server-without-scheme", "host"],
)
def test_a_file_describes_the_registry_itself(hosts: Path, text: str) -> None:
    folder = configure(hosts, "ghcr.io", text)
    (own, mirrors) = (hosts_of("ghcr.io", str(hosts)).own, hosts_of("ghcr.io", str(hosts)).mirrors)
    assert own
    assert (own.base.lower(), own.authorities, own.verify) == ("https://ghcr.io/v2", (f"{folder}/own.crt",), False)
    both = (f"{folder}/both.pem", f"{folder}/both.pem")
    assert own.clients == ((f"{folder}/own.cert", f"{folder}/own.key"), both, both)
    assert own.headers == (("X-Team", "envs"),)
    assert mirrors == ()


def test_a_file_with_mirrors_only_leaves_the_registry_s_scheme_open(hosts: Path) -> None:
    configure(hosts, "localhost_5000_", '[host."http://localhost:30020"]\n')
    assert hosts_of("localhost:5000", str(hosts)) == Hosts(None, (Host("http://localhost:30020/v2"),))


def test_a_folder_without_a_file_holds_certificates(hosts: Path) -> None:
    folder = hosts / "ghcr.io"
    folder.mkdir(parents=True)
    for name in ("ca.crt", "own.cert", "own.key", "other"):
        (folder / name).touch()
    expected = Host(
        "https://ghcr.io/v2",
        authorities=(f"{folder}/ca.crt",),
        clients=((f"{folder}/own.cert", f"{folder}/own.key"),),
    )
    assert hosts_of("ghcr.io", str(hosts)) == Hosts(expected)


def use(host: str, hosts: Path) -> None:
    registry = Registry(host, "team/envs", trust=Trust(hosts_dir=str(hosts)), patience=Patience(tries=1))
    try:
        manifest = push_image(registry, [b"content"], "v1")
        assert registry.resolve("v1") == manifest.descriptor
    finally:
        registry.close()


@pytest.mark.parametrize("text", ['ca = "ca.crt"\n', "skip_verify = true\n", ""], ids=["ca", "skip-verify", "folder"])
@pytest.mark.slow
def test_a_push_and_a_login_use_the_file_s_settings_for_the_registry(
    hosts: Path, private: Authority, text: str
) -> None:
    with RegistrySimulator().serving(private.server) as simulator:
        folder = configure(hosts, simulator.host, f"{text}[header]\nX-Team = 'envs'\n" if text else "")
        with pytest.raises(Unreachable):
            use(simulator.host, hosts / "none")
        shutil.copy(private.certificate, folder / "ca.crt")
        if not text:
            (folder / "hosts.toml").unlink()
        use(simulator.host, hosts)
        simulator.auth = "basic"
        login(simulator.host, USER, PASSWORD, trust=Trust(hosts_dir=str(hosts)))
        assert all(request.headers.get("X-Team") == ("envs" if text else None) for request in simulator.requests)


def test_a_file_can_name_plain_http_for_the_registry(hosts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *rest, **options: resolve("127.0.0.1", *rest, **options))
    with RegistrySimulator().serving() as simulator:
        host = simulator.host.replace("localhost", "registry.example")
        with pytest.raises(Unreachable, match=r"speaks plain HTTP, not HTTPS"):
            use(host, hosts)
        configure(hosts, host, f'server = "http://{host}"\n')
        use(host, hosts)
        assert simulator.tags["team/envs"]


def test_a_header_of_the_file_stays_with_its_host(hosts: Path) -> None:
    with RegistrySimulator().serving() as simulator, RegistrySimulator().serving() as other:
        configure(hosts, simulator.host, f'server = "http://{simulator.host}"\n[header]\nAuthorization = "secret"\n')
        where = f"http://{other.host}/v2/team/envs/blobs/uploads/5"
        simulator.faults = [Fault("POST", 1, 202, {"Location": where})]
        registry = Registry(simulator.host, "team/envs", trust=Trust(hosts_dir=str(hosts)), patience=Patience(tries=1))
        with pytest.raises(LayersError):
            blob(b"content").pushed(registry)
        registry.close()
        assert simulator.requests[-1].headers["Authorization"] == "secret"
        assert other.requests
        assert not [request for request in other.requests if "Authorization" in request.headers]


@pytest.mark.slow
def test_a_host_named_by_an_answer_is_verified_and_sees_no_client_certificate(
    hosts: Path, tmp_path: Path, private: Authority
) -> None:
    curious = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    curious.load_cert_chain(*private.own)
    curious.load_verify_locations(private.certificate)
    curious.verify_mode = ssl.CERT_OPTIONAL
    with (
        RegistrySimulator().serving(private.server) as simulator,
        RegistrySimulator().serving(curious, address="127.0.0.1") as other,
    ):
        shown: list[object] = []
        other.peer = shown.append
        simulator.elsewhere = f"https://{other.host}"
        folder = configure(hosts, simulator.host, "skip_verify = true\nclient = [['own.crt', 'own.key']]\n")
        for source, name in zip(private.own, ("own.crt", "own.key"), strict=True):
            shutil.copy(source, folder / name)
        other.add_blob("team/envs", b"content")
        for trust, trusted in (
            (Trust(hosts_dir=str(hosts)), False),
            (Trust(ca_file=private.certificate, hosts_dir=str(hosts)), True),
        ):
            registry = Registry(simulator.host, "team/envs", trust=trust, patience=Patience(tries=1))
            thing = blob(b"content").pushed(registry)
            with contextlib.ExitStack() as stack:
                if not trusted:
                    stack.enter_context(pytest.raises(Unreachable, match=f"{other.host}: certificate not trusted"))
                assert registry.fetch(thing.descriptor).__enter__().read() == b"content"
            registry.close()
        assert shown
        assert not any(shown)
