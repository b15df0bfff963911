from __future__ import annotations

from collections.abc import Callable

import pytest

from perry.cli.interruption import Interrupted, resumable
from perry.errors import EngineFailure, PerryError, WorkspaceNotFound
from perry.workspace.models import Workspace


def interrupted(get: Callable[[str], Workspace]) -> Interrupted:
    with pytest.raises(Interrupted) as raised, resumable("demo", "`again`", get):
        raise KeyboardInterrupt
    return raised.value


def test_ctrl_c_says_what_is_left_and_how_to_go_on(
    make_workspace: Callable[..., Workspace],
) -> None:
    error = interrupted(lambda name: make_workspace(name=name, state="created"))
    assert error.message == "Interrupted: workspace demo is there, created."
    assert error.hint.startswith("Go on with `again`")
    assert "perry workspace remove demo" in error.hint
    assert error.exit_code == 130


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (WorkspaceNotFound("none"), "has no container yet"),
        (EngineFailure("no answer"), "could not be asked (no answer)"),
    ],
)
def test_ctrl_c_says_so_where_nothing_is_known(failure: PerryError, said: str) -> None:
    def get(_: str) -> Workspace:
        raise failure

    assert said in interrupted(get).message


def test_other_endings_pass_through(make_workspace: Callable[..., Workspace]) -> None:
    with pytest.raises(EngineFailure), resumable("demo", "`again`", lambda _: make_workspace()):
        raise EngineFailure("no answer")
