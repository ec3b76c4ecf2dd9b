"""References: what registries and folders can have, and messages about all others without a secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.layers.errors import InvalidReference
from lamella.layers.oci.documents import Digest
from lamella.layers.oci.reference import Reference

DIGEST = Digest.of(b"content")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python:311", Reference("docker.io", "library/python", tag="311")),
        ("ghcr.io/team/envs:v1", Reference("ghcr.io", "team/envs", tag="v1")),
        ("ghcr.io/team/envs", Reference("ghcr.io", "team/envs", tag="latest")),
        ("localhost/envs", Reference("localhost", "envs", tag="latest")),
        ("localhost:5000/team/envs:v1", Reference("localhost:5000", "team/envs", tag="v1")),
        ("[::1]:5000/envs:v1", Reference("[::1]:5000", "envs", tag="v1")),
        ("debian", Reference("docker.io", "library/debian", tag="latest")),
        ("debian:bookworm", Reference("docker.io", "library/debian", tag="bookworm")),
        ("team/envs", Reference("docker.io", "team/envs", tag="latest")),
        ("docker.io/debian", Reference("docker.io", "library/debian", tag="latest")),
        ("TEAM/envs", Reference("TEAM", "envs", tag="latest")),
        (f"ghcr.io/envs@{DIGEST}", Reference("ghcr.io", "envs", digest=DIGEST)),
        (f"ghcr.io/envs:v1@{DIGEST}", Reference("ghcr.io", "envs", tag="v1", digest=DIGEST)),
        ("ghcr.io/a__b/c--d/e.f:A-1_.", Reference("ghcr.io", "a__b/c--d/e.f", tag="A-1_.")),
        ("oci:/srv/layout:v1", Reference(folder="/srv/layout", tag="v1")),
        ("oci:layout", Reference(folder="layout", tag="latest")),
        ("oci:../a b/é:v1", Reference(folder="../a b/é", tag="v1")),
        ("oci:/srv/with:colon/layout", Reference(folder="/srv/with:colon/layout", tag="latest")),
        ("oci:/srv/me@home:v1", Reference(folder="/srv/me@home", tag="v1")),
        (f"oci:/srv/layout@{DIGEST}", Reference(folder="/srv/layout", digest=DIGEST)),
        (f"oci:/srv/layout:v1@{DIGEST}", Reference(folder="/srv/layout", tag="v1", digest=DIGEST)),
    ],
)
def test_a_reference_is_read(text: str, expected: Reference) -> None:
    assert Reference.parse(text) == expected
    assert Reference.parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "^'': missing repository; write REGISTRY/REPOSITORY:TAG"),
        ("https://ghcr.io/team/envs", "a URL; write it without scheme and user"),
        ("ghcr.io/Team/envs", "not a repository; use lower-case letters"),
        ("ghcr.io/team//envs", "not a repository; use lower-case letters"),
        ("ghcr.io/../envs", "not a repository; use lower-case letters"),
        ("ghcr.io/", "^ghcr.io/: missing repository"),
        ("team/", "^team/: missing repository"),
        (":v1", "^:v1: missing repository"),
        ("v1:", "^'v1:': missing tag after the colon; add one, such as v1$"),
        ("localhost:5000/envs:", "^'localhost:5000/envs:': missing tag"),
        ("envs:v1 ", "^'envs:v1 ': not a tag"),
        ("ghcr.io/envs:a b", "not a tag; use letters, .* at most 128"),
        ("ghcr.io/envs:" + "a" * 129, "not a tag; use letters, .* at most 128"),
        ("ghcr.io/envs:v1\n", "not a tag; use letters, .* at most 128"),
        ("-host.example/envs", "the registry is not a host name"),
        ("host..example/envs", "the registry is not a host name"),
        (
            "ghcr.io/envs@sha256:abc",
            "^ghcr.io/envs@sha256:abc: invalid digest; write sha256: or sha512: and lower-case",
        ),
        ("ghcr.io/envs@md5:" + "a" * 32, "invalid digest"),
        ("team/envs@sha256/abc", "^team/envs@sha256/abc: invalid digest; write sha256: or sha512:"),
        ("ghcr.io/envs@", "^'ghcr.io/envs@': missing digest after @"),
        ("user:hunter2@ghcr.io/envs:v1", r"^\*\*\*@ghcr.io/envs:v1: has a user; leave it out, and use lamella login"),
        ("localhost:5133", "localhost:5133: a registry without a repository; write localhost:5133/REPOSITORY:TAG"),
        ("localhost", "a registry without a repository"),
        ("ghcr.io", "a registry without a repository"),
        ("ghcr.io:443", "a registry without a repository"),
        ("10.0.0.1:5000", "a registry without a repository"),
        ("[::1]:5000", "a registry without a repository"),
        ("/srv/layout", "/srv/layout: a path; write oci:/srv/layout:TAG for an OCI layout folder"),
        ("./layout", "a path; write oci:./layout:TAG"),
        ("./layout:v1", "a path; write oci:./layout:v1 for"),
        ("../layout", "a path; write oci:../layout:TAG"),
        ("~/layout", "a path; write oci:~/layout:TAG"),
        (".", "a path; write oci:.:TAG"),
        (".venv", "^.venv: a path; write oci:.venv:TAG"),
        (".venv/bin", "a path; write oci:.venv/bin:TAG"),
        ("file:///srv/layout:v1", "^file:///srv/layout:v1: a URL; write oci:/srv/layout:v1$"),
        ("oci-layout://./layout", "a URL; write oci:./layout$"),
        ("oci://ghcr.io/team/envs", "a URL; write it without scheme and user, such as"),
        ("oci:", "names no folder; write oci:FOLDER:TAG"),
        ("oci::v1", "names no folder; write oci:FOLDER:TAG"),
        ("oci:/srv/layout:a b", "not a tag; use letters"),
        ("oci:/srv/layout:", "^'oci:/srv/layout:': missing tag after the colon"),
        ("oci:/srv/lay\0out:v1", "names no folder"),
    ],
)
def test_an_invalid_reference_is_reported(text: str, message: str) -> None:
    with pytest.raises(InvalidReference, match=message):
        Reference.parse(text)


def test_a_layout_below_the_home_is_not_a_folder_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert str(Reference.parse("oci:~/envs:v1")) == "oci:/home/ada/envs:v1"
    assert str(Reference.parse("oci:./~/envs:v1")) == "oci:./~/envs:v1"


def test_a_password_in_a_reference_is_not_shown() -> None:
    for text in ("user:hunter2@ghcr.io/team/envs", "https://user:hunter2@ghcr.io/team/envs:v1"):
        with pytest.raises(InvalidReference) as caught:
            Reference.parse(text)
        assert "hunter2" not in str(caught.value)


def test_a_reference_is_pinned_to_a_digest() -> None:
    pinned = Reference.parse("ghcr.io/envs:v1").at(DIGEST)
    assert str(pinned) == f"ghcr.io/envs:v1@{DIGEST}"


@given(st.text(max_size=40))
def test_any_text_is_a_reference_or_a_clear_error(text: str) -> None:
    for candidate in (text, f"oci:{text}"):
        try:
            reference = Reference.parse(candidate)
        except InvalidReference:
            continue
        assert Reference.parse(str(reference)) == reference
