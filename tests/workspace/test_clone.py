from __future__ import annotations

import pytest

from perry.errors import UsageError
from perry.workspace.clone import directory_of, validate, without_credentials


@pytest.mark.parametrize(
    ("url", "directory"),
    [
        ("https://example.org/shop.git", "shop"),
        ("https://example.org/shop.git/", "shop"),
        ("https://example.org/a/b/shop", "shop"),
        ("https://me:secret@example.org/shop.git", "shop"),
        ("https://example.org/a%20b.git", "a%20b"),
        ("https://example.org/shop.git?x=1", "shop"),
        ("ssh://git@example.org:2222/~me/shop.git", "shop"),
        ("ssh://git@[::1]:22/shop.git", "shop"),
        ("git://example.org/shop", "shop"),
        ("file:///srv/shop/.git", "shop"),
        ("git@example.org:me/shop.git", "shop"),
        ("example.org:shop", "shop"),
        ("git@example.org:~me/shop.git/", "shop"),
    ],
)
def test_a_repository_is_cloned_into_the_directory_that_git_would_choose(
    url: str, directory: str
) -> None:
    assert validate(url) == url
    assert directory_of(url) == directory


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-x",
        "--upload-pack=id",
        "http://h/x",
        "ftp://h/x",
        "ext::sh -c id",
        "HTTPS//h/x",
        "/srv/shop",
        "./shop",
        "fd::17",
        "git@h::x",
        "https://[bad/x",
        "https://h/a b",
        "https://h/a\nb",
        "git@h:a\0b",
    ],
)
def test_what_git_must_not_be_given_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        validate(url)


@pytest.mark.parametrize("url", ["https://h", "https://h/", "https://h/.git", "ssh://h/..", "h:."])
def test_a_url_that_names_no_repository_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        directory_of(url)


@pytest.mark.parametrize(
    "text",
    [
        "https://me:secret@example.org/x.git",
        "https://secret@example.org/x.git",
        "https://me:se@cr@secret@example.org/x.git",
        "https://me:%73ecret-secret@example.org/x.git",
        "ssh://secret@[::1]:22/x",
        "fatal: unable to access 'https://me:secret@example.org/x.git/': nothing there",
        "first https://secret@a/x then https://me:secret@b/y",
    ],
)
def test_credentials_are_blotted_out_wherever_they_stand(text: str) -> None:
    said = without_credentials(text)
    assert "secret" not in said
    assert said.count("***@") == text.count("://")


@pytest.mark.parametrize(
    "text", ["https://example.org/@scope/x", "git@example.org:x.git", "mail me@example.org"]
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert without_credentials(text) == text


@pytest.mark.parametrize(
    "url", ["https://u:secret@h/", "http://u:secret@h/x", "https://u:secret@["]
)
def test_a_refusal_repeats_no_credentials(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        directory_of(validate(url))
    assert "secret" not in str(caught.value)
