"""What an engine says on a bad day, in perry's words."""

from __future__ import annotations

import tarfile

import pytest

from perry.errors import EngineFailure, EngineUnreachable
from perry.workspace import helper
from tests.workspace.engine_answers import engine_of, listed


def test_what_is_not_there_is_none() -> None:
    with engine_of({}) as engine:
        assert engine.get_container("gone") is None
        assert engine.get_image("gone") is None
        assert engine.get_volume("gone") is None
        assert engine.read_file("gone", "/etc/passwd") is None


def test_an_error_keeps_the_engines_words_and_status() -> None:
    table = {"/containers/c1/json": lambda: (500, {"message": "the disk is on fire"})}
    with engine_of(table) as engine, pytest.raises(EngineFailure, match="on fire") as caught:
        engine.get_container("c1")
    assert caught.value.status == 500
    assert caught.value.__cause__ is not None


def test_an_archive_that_is_none_is_a_failure_of_the_engine() -> None:
    table = {"/containers/c1/archive": lambda: (200, "no tar")}
    with engine_of(table) as engine, pytest.raises(EngineFailure, match="archive") as caught:
        engine.read_file("c1", "/etc/passwd")
    assert isinstance(caught.value.__cause__, tarfile.TarError)


def test_an_engine_that_hangs_up_in_a_stream_is_said_to_be_unreachable() -> None:
    half = b'12\r\n{"status":"begun"}\r\n40\r\n{"status":"ha'
    with engine_of({"/images/create": lambda: (200, half)}) as engine:
        words = engine.pull_image("a:1")
        assert next(words) == "begun"
        with pytest.raises(EngineUnreachable, match="can't be used"):
            next(words)


def test_images_without_a_name_are_not_listed() -> None:
    listed = [{"RepoTags": ["<none>:<none>"]}, {"RepoTags": None}, {"RepoTags": ["a:1", "b:2"]}]
    with engine_of({"/images/json": lambda: (200, listed)}) as engine:
        assert engine.list_images("perry.image") == ["a:1", "b:2"]


def test_only_what_still_has_its_first_name_is_a_helper() -> None:
    """A keeper was renamed, and a container of a committed image has only inherited the label."""
    names = {
        "perry-probe-1": "perry-probe-1",
        "perry-fill-2": "perry-bundle-x",
        "perry-home-3": "somebodys",
    }
    found = [
        listed(first, Names=[f"/somebody/{now}x", f"/{now}"], Labels={helper.LABEL: first})
        for first, now in names.items()
    ]
    with engine_of({"/containers/json": lambda: (200, found)}) as engine:
        (left,) = helper.list_helpers(engine)
    assert left.name == "perry-probe-1"


@pytest.mark.parametrize("status", [404, 409])
def test_a_container_that_has_just_ended_has_no_processes(status: int) -> None:
    table = {"/containers/c1/top": lambda: (status, {"message": "it is not running"})}
    with engine_of(table) as engine:
        assert engine.list_processes("c1") == []
