"""URLs from outside."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.layers.errors import InvalidContent
from lamella.layers.registry.url import Address, is_loopback


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/v2/",
        "http://",
        "http:///x",
        "http://[bad/x",
        "http://[1:2/x",
        "http://host:99999999/x",
        "http://host:port/x",
        "http://exa mple.com/x",
        "http://evil.example\\@registry.example/x",
        "http://regis\ntry.example/x",
        "file:///etc/passwd",
    ],
)
def test_an_invalid_url_is_reported_without_showing_it(url: str) -> None:
    with pytest.raises(InvalidContent, match=r"^ghcr\.io: invalid URL; check for a proxy in between$"):
        Address.parse(url, "ghcr.io")


@given(st.text())
def test_any_text_is_an_address_or_an_error_of_ours(text: str) -> None:
    with contextlib.suppress(InvalidContent):
        assert Address.parse(f"https://{text}", "ghcr.io").host
    with contextlib.suppress(InvalidContent):
        assert Address.parse("https://ghcr.io/v2/", "ghcr.io").joined(text, "ghcr.io").host


@pytest.mark.parametrize(
    ("url", "authority", "shown"),
    [
        ("https://User:SECRET@GHCR.io/x?sig=SECRET#a", "ghcr.io", "https://ghcr.io/x"),
        ("http://SECRET@[::1]:5000/x", "[::1]:5000", "http://[::1]:5000/x"),
    ],
)
def test_a_shown_address_holds_no_secret(url: str, authority: str, shown: str) -> None:
    address = Address.parse(url, "ghcr.io")
    assert (address.authority, address.shown) == (authority, shown)


OPAQUE = [
    "/blob%2fa?X-Sig=a%2Fb%3d&empty=&x=a+b~",
    "/a//b/./c/../d;e=f?",
    "/?a?b=/c",
    "/{a}|b^c`d?x=[1]'\"<>",
    "/100%?%zz",
]


@pytest.mark.parametrize("target", OPAQUE)
def test_a_url_s_target_stays_as_its_server_wrote_it(target: str) -> None:
    address = Address.parse(f"https://ghcr.io{target}#fragment", "ghcr.io")
    assert address.target(absolute=False) == target
    assert address.target(absolute=True) == f"https://ghcr.io{target}"
    assert address.joined(f"https://other.example{target}", "x").target(absolute=False) == target


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://ghcr.io", "/"),
        ("https://ghcr.io?a=b", "/?a=b"),
        ("https://user:password@ghcr.io/a", "/a"),
        ("https://ghcr.io/a b?c d", "/a%20b?c%20d"),
        # A header is read as Latin-1; the server sent UTF-8.
        ("https://ghcr.io/\u00c3\u00a9", "/%C3%A9"),
    ],
)
def test_a_target_is_escaped_for_http(url: str, target: str) -> None:
    assert Address.parse(url, "ghcr.io").target(absolute=False) == target


def test_the_default_port_is_the_same_origin() -> None:
    def origin(url: str) -> object:
        return Address.parse(url, "ghcr.io").origin

    assert origin("https://ghcr.io/a") == origin("https://GHCR.IO:443/b")
    assert origin("https://ghcr.io/a") != origin("http://ghcr.io/a")
    assert origin("https://ghcr.io/a") != origin("https://ghcr.io:444/a")


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.2:1", "[::1]:5000", "[::1]"])
def test_loopback_is_known_by_name_and_address(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["ghcr.io", "localhost.example", "[bad", "10.0.0.1:5000", ""])
def test_others_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)
