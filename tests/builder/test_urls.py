from __future__ import annotations

import pytest

from lamella.builder.urls import file_without_credentials, text_without_credentials, without_credentials


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://host/t/SECRET/chan", "https://host/chan"),
        ("https://host/t/SECRET", "https://host"),
        ("https://host/t//chan", "https://host/chan"),
        ("https://host/t/", "https://host"),
        ("https://me:SECRET@host:8080/chan", "https://host:8080/chan"),
        ("https://SECRET@host/chan", "https://host/chan"),
        ("https://me:SEC@RET@host/chan", "https://host/chan"),
        ("https://host/x?token=SECRET#SECRET", "https://host/x"),
        ("conda.corp/t/SECRET/c", "conda.corp/c"),
        ("me:SECRET@conda.corp/c", "conda.corp/c"),
        ("SECRET@conda.corp", "conda.corp"),
        ("ssh://git@host/x.git", "ssh://git@host/x.git"),
        ("git@host:me/x.git", "git@host:me/x.git"),
        ("file:///home/me/x", "file:///home/me/x"),
        ("/home/me/x", "/home/me/x"),
        ("conda-forge", "conda-forge"),
        ("http://[SECRET", ""),
        ("", ""),
    ],
)
def test_a_url_has_no_credential_left(url: str, clean: str) -> None:
    assert without_credentials(url) == clean


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://me:SECRET@host/packages/py3/t/torch/torch-2.0-py3-none-any.whl?a=SECRET#sha256=0", ""),
        ("https://host/t/typing-extensions/typing_extensions-4.0-py3-none-any.whl", ""),
        ("https://host/t/torch-2.0.tar.gz", ""),
        ("file:///srv/t/wheels/torch-2.0-py3-none-any.whl", ""),
        ("https://host/t/SECRET/me/torch-2.0.tar.gz", "https://host/me/torch-2.0.tar.gz"),
    ],
)
def test_the_url_of_a_file_keeps_its_folders_and_has_no_credential_left(url: str, clean: str) -> None:
    same = url.partition("?")[0].replace("me:SECRET@", "")
    assert file_without_credentials(url) == (clean or same)


def test_the_urls_of_a_text_have_no_credential_left_and_the_rest_stays() -> None:
    said = "foo @ git+https://SECRET@host/foo.git@v1 ; python_version > '3'\nsee <https://me:SECRET@host/a>, a@b.c"
    assert text_without_credentials(said) == (
        "foo @ git+https://host/foo.git@v1 ; python_version > '3'\nsee <https://host/a>, a@b.c"
    )
