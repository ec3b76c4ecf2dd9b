"""Proxies by Go's rules: one table of cases for the rules, a registry and skopeo."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import Denied, LayersError, Unreachable
from lamella.layers.registry.proxies import Proxy, proxy_for
from lamella.layers.registry.repository import Registry
from lamella.layers.registry.retry import Patience
from lamella.layers.registry.url import Address
from lamella.layers.settings.trust import Trust
from support.authority import authority
from support.engines import need
from support.homes import fresh_home
from support.networks import in_network
from support.recording_proxy import RecordingProxy
from support.registry_simulator import RegistrySimulator
from support.servers import answering
from support.socks_proxy import SocksProxy

if TYPE_CHECKING:
    from pathlib import Path

SOON = Patience(tries=1, first=0.001)
BOTH, HTTP, HTTPS, NONE = ("http", "https"), ("http",), ("https",), ()
NAMED = {"HTTP_PROXY": "http://PROXY", "HTTPS_PROXY": "http://PROXY"}
BROKEN = "http://127.0.0.1:1"


def without(no_proxy: str) -> dict[str, str]:
    return {**NAMED, "NO_PROXY": no_proxy}


CASES = [
    (NAMED, "registry.example", BOTH),
    (NAMED, "registry.example:5000", BOTH),
    ({"http_proxy": "http://PROXY", "https_proxy": "http://PROXY"}, "registry.example", BOTH),
    ({"HTTPS_PROXY": "http://PROXY"}, "registry.example", HTTPS),
    ({"HTTP_PROXY": "http://PROXY"}, "registry.example", HTTP),
    ({"HTTPS_PROXY": "http://PROXY", "https_proxy": BROKEN}, "registry.example", HTTPS),
    ({"HTTPS_PROXY": "", "https_proxy": "http://PROXY"}, "registry.example", HTTPS),
    ({"HTTPS_PROXY": "PROXY"}, "registry.example", HTTPS),
    ({"HTTPS_PROXY": "http://ada:se%40cret@PROXY/"}, "registry.example", HTTPS),
    ({"ALL_PROXY": "http://PROXY", "all_proxy": "http://PROXY"}, "registry.example", NONE),
    ({**NAMED, "REQUEST_METHOD": "GET"}, "registry.example", HTTPS),
    (NAMED, "localhost:5000", NONE),
    (NAMED, "127.0.0.1:5000", NONE),
    (NAMED, "127.8.8.8:5000", NONE),
    (NAMED, "[::1]:5000", NONE),
    (without("registry.example"), "registry.example", NONE),
    (without("REGISTRY.example"), "registry.example", NONE),
    (without("other.example, registry.example ,"), "registry.example", NONE),
    (without("example"), "registry.example", NONE),
    (without(".example"), "registry.example", NONE),
    (without("*.example"), "registry.example", NONE),
    (without("*example"), "registry.example", BOTH),
    (without("ample"), "registry.example", BOTH),
    (without(".registry.example"), "registry.example", BOTH),
    (without("*.registry.example"), "registry.example", BOTH),
    (without("*"), "registry.example", NONE),
    (without("other.example,*"), "registry.example", NONE),
    (without("registry.example:5000"), "registry.example:5000", NONE),
    (without("registry.example:5001"), "registry.example:5000", BOTH),
    (without("registry.example:443"), "registry.example", HTTP),
    (without(".example:5000"), "registry.example:5000", NONE),
    (without("10.0.0.0/8"), "10.1.2.3:5000", NONE),
    (without("10.1.2.9/8"), "10.1.2.3:5000", NONE),
    (without("10.0.0.0/16"), "10.1.2.3:5000", BOTH),
    (without("10.1.2.3"), "10.1.2.3:5000", NONE),
    (without("10.1.2.3:5000"), "10.1.2.3:5000", NONE),
    (without("10.1.2.3:5001"), "10.1.2.3:5000", BOTH),
    (without("2.3"), "10.1.2.3:5000", BOTH),
    (without("10.1.2.*"), "10.1.2.3:5000", BOTH),
    (without("fd12::/16"), "[fd12::1]:5000", NONE),
    (without("fd12::1"), "[fd12:0::1]:5000", NONE),
    (without("[fd12::1]:5000"), "[fd12::1]:5000", NONE),
    (without("fd13::/16"), "[fd12::1]:5000", BOTH),
    ({**NAMED, "no_proxy": "registry.example"}, "registry.example", NONE),
    ({**NAMED, "NO_PROXY": "other.example", "no_proxy": "registry.example"}, "registry.example", BOTH),
    ({**NAMED, "NO_PROXY": "", "no_proxy": "registry.example"}, "registry.example", NONE),
]
CHANGED = [without("2.3")]
"""Go before 1.24.1 took a domain's suffix for one of an address as well (CVE-2025-22870)."""
IDS = [f"{host} {list(variables.values())}" for variables, host, _ in CASES]


@pytest.mark.parametrize(("variables", "host", "expected"), CASES, ids=IDS)
def test_a_proxy_is_chosen_by_go_s_rules(variables: dict[str, str], host: str, expected: tuple[str, ...]) -> None:
    environment = {name: value.replace("PROXY", "proxy.example:3128") for name, value in variables.items()}
    found = {scheme: proxy_for(Address.parse(f"{scheme}://{host}/v2", host), environment) for scheme in BOTH}
    assert tuple(scheme for scheme, proxy in found.items() if proxy) == expected
    assert all(proxy.url == "http://proxy.example:3128" for proxy in found.values() if proxy)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.engine
def test_skopeo_and_a_registry_choose_the_same_proxy_in_each_case() -> None:
    """skopeo reads no reference to an IPv6 address."""
    skopeo = need("skopeo")
    plain = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}

    def used(environment: dict[str, str], host: str, ours: bool) -> tuple[str, ...]:
        with RecordingProxy().serving() as proxy:
            settings = {name: value.replace("PROXY", proxy.host) for name, value in environment.items()}
            if ours:
                os.environ.clear()
                os.environ.update(plain | settings)
                for insecure in (True, False):
                    registry = Registry(host, "team/envs", trust=Trust(insecure=insecure), patience=SOON)
                    with pytest.raises(LayersError):
                        registry.tags()
                    registry.close()
            else:
                command = [skopeo, "list-tags", "--tls-verify=false", f"docker://{host}/team/envs"]
                subprocess.run(command, env=plain | settings, check=False, capture_output=True)
            schemes = {"https" if line.startswith("CONNECT") else "http" for line, _ in proxy.requests}
            return tuple(sorted(schemes))

    def compare() -> list[str]:
        # Without a network, a direct connection fails at once.
        return [
            f"{host} with {variables}: {found}, expected {expected}"
            for variables, host, expected in CASES
            for ours in ((True,) if host.startswith("[") or variables in CHANGED else (True, False))
            if (found := used(variables, host, ours)) != expected
        ]

    assert in_network([], compare) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("proxy.example", Proxy("http://proxy.example:80")),
        ("proxy.example:3128", Proxy("http://proxy.example:3128")),
        ("socks5://proxy.example", Proxy("socks5://proxy.example:1080")),
        ("https://proxy.example", Proxy("https://proxy.example:443")),
        ("http://ada@proxy.example:3128/", Proxy("http://proxy.example:3128", "ada:")),
        ("http://ada:se%40cr%3Aet@[fd12::1]:3128", Proxy("http://[fd12::1]:3128", "ada:se@cr:et")),
    ],
)
def test_a_proxy_s_url_is_read_with_its_login(value: str, expected: Proxy) -> None:
    assert proxy_for(Address.parse("https://ghcr.io/v2", ""), {"HTTPS_PROXY": value}) == expected


@pytest.mark.parametrize(
    "value",
    [
        "http://",
        "http://ada:secret@proxy:port",
        "ftp://ada:secret@proxy",
        "socks4://ada:secret@proxy",
        "http://[bad:secret",
        "pro xy:secret",
    ],
)
def test_an_invalid_proxy_is_reported_without_its_password(value: str) -> None:
    with pytest.raises(LayersError, match=r"^HTTPS_PROXY: not the URL of an HTTP or SOCKS5 proxy; use http://HOST"):
        proxy_for(Address.parse("https://ghcr.io/v2", ""), {"HTTPS_PROXY": value})


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    fresh_home(tmp_path, monkeypatch)
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def ask(host: str, *, insecure: bool = False) -> None:
    registry = Registry(host, "team/envs", trust=Trust(insecure=insecure), patience=Patience(tries=3, first=0.001))
    try:
        registry.tags()
    finally:
        registry.close()


@pytest.mark.parametrize("insecure", [False, True], ids=["tunnel", "forward"])
def test_a_login_is_sent_to_the_proxy(environment: pytest.MonkeyPatch, insecure: bool) -> None:
    with RecordingProxy().serving() as proxy:
        for name in NAMED:
            environment.setenv(name, f"http://ada:secret@{proxy.host}")
        with pytest.raises(Unreachable) as caught:
            ask("registry.example", insecure=insecure)
        assert {login for _, login in proxy.requests} == {"Basic YWRhOnNlY3JldA=="}
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            403,
            r"^proxy 127\.0\.0\.1:\d+: refuses registry\.example \(403 Forbidden\); ask its administrator, or add reg",
        ),
        (407, r"^proxy 127\.0\.0\.1:\d+: requires a login \(407 .*\); write USER:PASSWORD@ before its host"),
    ],
)
def test_a_proxy_that_refuses_is_named_and_asked_once(
    environment: pytest.MonkeyPatch, status: int, message: str
) -> None:
    with RecordingProxy(status).serving() as proxy:
        environment.setenv("HTTPS_PROXY", f"http://{proxy.host}")
        with pytest.raises(Denied, match=message) as caught:
            ask("registry.example")
        assert len(proxy.requests) == 1
        assert "lamella login" not in str(caught.value)


def test_a_proxy_that_is_busy_is_asked_again(environment: pytest.MonkeyPatch) -> None:
    with RecordingProxy(503).serving() as proxy:
        environment.setenv("HTTPS_PROXY", f"http://{proxy.host}")
        with pytest.raises(
            Unreachable, match=rf"cannot connect through the proxy {proxy.host} \(503\); check HTTPS_PROXY"
        ):
            ask("registry.example")
        assert len(proxy.requests) == 3


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            403,
            r"^registry\.example, or the proxy 127\.0\.0\.1:\d+ in between, denies team/envs; add registry\.example to",
        ),
        (407, r"^proxy 127\.0\.0\.1:\d+: requires a login \(407\); write USER:PASSWORD@"),
    ],
)
def test_a_refusal_that_can_be_the_proxy_s_names_it(environment: pytest.MonkeyPatch, status: int, message: str) -> None:
    with RecordingProxy(status).serving() as proxy:
        environment.setenv("HTTP_PROXY", f"http://{proxy.host}")
        with pytest.raises(Denied, match=message):
            ask("registry.example", insecure=True)


def test_no_answer_through_a_proxy_leads_to_metadata(environment: pytest.MonkeyPatch) -> None:
    with RecordingProxy().serving() as proxy:
        environment.setenv("HTTP_PROXY", f"http://{proxy.host}")
        with pytest.raises(Denied, match=r"169\.254\.169\.254 is a link-local or metadata address"):
            ask("169.254.169.254", insecure=True)
        assert not proxy.requests


# SOCKS


@pytest.mark.parametrize("login", ["", "ada:se@cret"])
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy_resolves_the_registry_s_name(environment: pytest.MonkeyPatch, scheme: str, login: str) -> None:
    with RegistrySimulator().serving() as simulator, SocksProxy(simulator.host, login=login).serving() as proxy:
        simulator.tags["team/envs"] = {"v1": ""}
        given = login.replace("@", "%40") + "@" if login else ""
        environment.setenv("HTTP_PROXY", f"{scheme}://{given}{proxy.host}")
        ask("registry.example", insecure=True)
        ask("10.1.2.3:5000", insecure=True)
        assert proxy.asked == ["registry.example:80", "10.1.2.3:5000"]
        assert [request.path for request in simulator.requests] == ["/v2/team/envs/tags/list?n=1000"] * 2


@pytest.mark.slow
def test_tls_goes_through_a_socks_proxy(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = authority(tmp_path, names="DNS:registry.example")
    with RegistrySimulator().serving(made.server) as simulator, SocksProxy(simulator.host).serving() as proxy:
        environment.setenv("HTTPS_PROXY", f"socks5://{proxy.host}")
        registry = Registry("registry.example", "team/envs", trust=Trust(ca_file=made.certificate), patience=SOON)
        assert registry.tags() == []
        registry.close()
        assert proxy.asked == ["registry.example:443"]


@pytest.mark.parametrize(
    ("code", "given", "error", "message"),
    [
        (2, "ada:secret@", Denied, r"^proxy .*: refuses registry\.example \(not allowed by its rules\); ask its"),
        (4, "ada:secret@", Unreachable, r"cannot connect through the proxy .*: host unreachable; check HTTPS_PROXY"),
        (9, "ada:secret@", Unreachable, r"cannot connect through the proxy .*: code 9; check HTTPS_PROXY"),
        (0, "", Denied, r"^proxy .*: requires a login; write USER:PASSWORD@"),
        (0, "ada:wrong@", Denied, r"^proxy .*: refuses the login; correct USER:PASSWORD@"),
    ],
)
def test_a_refusal_of_a_socks_proxy_is_reported_as_the_proxy_s(
    environment: pytest.MonkeyPatch, code: int, given: str, error: type[LayersError], message: str
) -> None:
    with SocksProxy("localhost:1", login="ada:secret", code=code).serving() as proxy:
        environment.setenv("HTTPS_PROXY", f"socks5://{given}{proxy.host}")
        with pytest.raises(error, match=message) as caught:
            ask("registry.example")
        assert "secret" not in str(caught.value)
        assert "wrong" not in str(caught.value)


def test_a_proxy_that_does_not_speak_socks_is_reported(environment: pytest.MonkeyPatch) -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as proxy:
        environment.setenv("HTTPS_PROXY", f"socks5://{proxy}")
        with pytest.raises(Unreachable, match=rf"through the proxy {proxy}: not a SOCKS5 proxy"):
            ask("registry.example")


def test_no_socks_proxy_leads_to_metadata(environment: pytest.MonkeyPatch) -> None:
    with SocksProxy("localhost:1").serving() as proxy:
        environment.setenv("HTTP_PROXY", f"socks5://{proxy.host}")
        with pytest.raises(Denied, match=r"169\.254\.169\.254 is a link-local or metadata address"):
            ask("169.254.169.254", insecure=True)
        assert not proxy.asked
