"""Workspaces that come and go while all of them are listened to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from perry.cli.fleet import Place
from perry.cli.host import Host
from perry.cli.listening import Ended, merged
from perry.errors import EngineUnreachable, WorkerUnreachable
from perry.workspace.models import Workspace
from tests.worker.running import PATIENCE

MakeWorkspace = Callable[..., Workspace]


class Town:
    """Workspaces by name, which speak when they are listened to; `gone` ends those that stay."""

    def __init__(self, make: MakeWorkspace) -> None:
        self.running: list[Workspace] = []
        self.gone = threading.Event()
        self.asked = 0
        self._make = make

    def add(self, name: str, started_at: str = "2023-11-14T22:13:21Z") -> Workspace:
        workspace = self._make(name=name, container_id=name, started_at=started_at)
        self.running = [one for one in self.running if one.name != name]
        self.running.append(workspace)
        return workspace

    def more(self) -> list[Workspace]:
        self.asked += 1
        if self.asked == 1:
            raise EngineUnreachable("restarting")
        return self.running

    def heard(self, workspace: Place) -> Iterator[str]:
        assert not isinstance(workspace, Host)
        yield f"{workspace.name} {workspace.started_at}"
        if workspace.name == "broken":
            raise WorkerUnreachable("gone", workspace="broken")
        assert self.gone.wait(PATIENCE)


@pytest.fixture
def town(make_workspace: MakeWorkspace) -> Iterator[Town]:
    made = Town(make_workspace)
    yield made
    made.gone.set()


def listen(town: Town, *first: Workspace) -> Iterator[str | Ended]:
    return merged(first, town.heard, idle=lambda: None, more=town.more, every=0.01)


def test_a_workspace_that_is_started_later_is_heard_once(town: Town) -> None:
    told = listen(town, town.add("first", "1"))
    assert next(told) == "first 1"
    town.add("second", "2")
    town.add("first", "3")  # restarted: whoever listens to it goes on by itself
    assert next(told) == "second 2"
    town.add("third", "4")
    assert next(told) == "third 4"


def test_without_any_workspace_the_first_is_waited_for(town: Town) -> None:
    told = listen(town)
    threading.Timer(0.05, town.add, ("late", "1")).start()
    assert next(told) == "late 1"


def test_one_that_ended_is_heard_again_only_when_it_is_started_again(town: Town) -> None:
    told = listen(town, town.add("broken", "1"))
    assert next(told) == "broken 1"
    assert isinstance(next(told), Ended)
    asked = town.asked
    threading.Timer(0.2, town.add, ("broken", "2")).start()
    assert next(told) == "broken 2"
    assert town.asked > asked + 2
