"""What perry does to a whole engine, seen on one that is the tests' own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.command import KILL_WORKER, Perry
from tests.e2e.own_engine import OwnEngine, build


@pytest.fixture
def perry(bare_engine: OwnEngine, tmp_path: Path) -> Perry:
    return user_of(bare_engine, tmp_path / "one")


def user_of(engine: OwnEngine, directory: Path) -> Perry:
    """A user of the engine, with a cache of their own."""
    directory.mkdir()
    environment = {"DOCKER_HOST": engine.address, "XDG_CACHE_HOME": str(directory / "cache")}
    return Perry(directory, environment)


def test_the_first_init_fills_a_bare_engine_once(bare_engine: OwnEngine, perry: Perry) -> None:
    assert bare_engine.containers() == bare_engine.volumes() == []
    assert "is ready" in perry.ok("workspace", "init", "one")
    assert bare_engine.volumes() == ["perry-bundle", "perry-key", "workspace-one-home"]
    (keeper,) = bare_engine.containers("perry-")
    assert keeper.startswith("perry-bundle-")
    assert "is ready" in perry.ok("workspace", "init", "two")
    assert bare_engine.containers("perry-") == [keeper]


def test_two_perrys_fill_an_engine_at_once(
    bare_engine: OwnEngine, perry: Perry, tmp_path: Path
) -> None:
    users = {"one": perry, "two": user_of(bare_engine, tmp_path / "two")}
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda it: users[it].ok("workspace", "init", it), users))
    assert all("is ready" in it for it in said)
    assert len(bare_engine.containers("perry-")) == 1
    # both know the one key: neither replaces the other's worker
    for user in users.values():
        views = user.json("workspace", "list")["workspaces"]
        assert [view["health"] for view in views] == ["healthy", "healthy"]


def test_uninstall_refuses_while_a_workspace_exists_and_then_leaves_nothing(
    bare_engine: OwnEngine, perry: Perry
) -> None:
    perry.ok("workspace", "init", "one")
    before = (bare_engine.containers(), bare_engine.volumes(), bare_engine.images())
    refused = perry.run("uninstall", "--yes")
    assert refused.returncode == 1
    assert "one" in refused.stderr
    assert (bare_engine.containers(), bare_engine.volumes(), bare_engine.images()) == before
    perry.ok("workspace", "remove", "one", "--yes")
    unasked = perry.run("uninstall")
    assert unasked.returncode == 2
    assert bare_engine.volumes() == ["perry-bundle", "perry-key"]
    gone = perry.json("uninstall", "--yes")
    assert gone["volumes"] == ["perry-bundle", "perry-key"]
    assert len(gone["images"]) == 2
    assert bare_engine.containers() == bare_engine.volumes() == bare_engine.images() == []
    assert "nothing of perry's" in perry.ok("uninstall", "--yes")


def test_uninstall_keeps_what_users_made_of_perrys_image(
    bare_engine: OwnEngine, perry: Perry
) -> None:
    """Such images inherit perry's label; some have no name."""
    perry.ok("workspace", "init", "one")
    committed = bare_engine.client.containers.get("workspace-one").commit()
    (reference,) = [it for it in bare_engine.images() if it.startswith("perry-workspace:")]
    build(bare_engine.client, "mine:1", {"Dockerfile": f"FROM {reference}\nENV MINE=1\n"})
    perry.ok("workspace", "remove", "one", "--yes")
    perry.ok("uninstall", "--yes")
    assert bare_engine.images() == ["mine:1"]
    assert bare_engine.client.images.get(committed.id)


def test_uninstall_takes_along_the_build_stage_and_nothing_that_was_made_of_it(
    bare_engine: OwnEngine, perry: Perry
) -> None:
    client = bare_engine.client
    stage = f"FROM {bare_engine.runtime}\nLABEL perry.image=build\n"
    ids = []
    for one in ("unused", "base", "used"):  # each takes the name of the one before
        build(client, "stage:1", {"Dockerfile": f"{stage}ENV STAGE={one}\n"})
        ids.append(client.images.get("stage:1").id)
    unused, base, used = ids
    build(client, "mine:1", {"Dockerfile": f"FROM {base}\nENV MINE=1\n"})
    client.containers.create(used, ["true"], name="somebodys")
    build(client, "stage:1", {"Dockerfile": f"FROM {bare_engine.runtime}\nENV STAGE=none\n"})
    perry.ok("uninstall", "--yes")
    left = {image.id for image in client.images.list(all=True)}
    assert unused not in left
    assert {base, used} <= left
    assert bare_engine.images() == ["mine:1", "stage:1"]


def test_uninstall_takes_along_what_killed_perrys_left(
    bare_engine: OwnEngine, perry: Perry
) -> None:
    for name in ("perry-fill-0123456789ab", "perry-probe-0123456789ab"):
        bare_engine.client.containers.create(
            bare_engine.runtime, ["true"], name=name, labels={"perry.helper": name}
        )
    perry.ok("uninstall", "--yes")
    assert bare_engine.containers() == []


def test_a_key_from_before_an_uninstall_does_no_harm(
    bare_engine: OwnEngine, perry: Perry, tmp_path: Path
) -> None:
    """Another user's uninstall makes the key in this one's cache a stale one."""
    other = user_of(bare_engine, tmp_path / "other")
    perry.ok("workspace", "init", "one")
    perry.ok("workspace", "remove", "one", "--yes")
    other.ok("uninstall", "--yes")
    bare_engine.fill()
    other.ok("workspace", "init", "two")
    started = bare_engine.client.containers.get("workspace-two").attrs["State"]["Pid"]
    assert "is ready" in perry.ok("workspace", "init", "one")
    for user in (other, perry):
        views = user.json("workspace", "list")["workspaces"]
        assert [view["health"] for view in views] == ["healthy", "healthy"], views
    assert bare_engine.client.containers.get("workspace-two").attrs["State"]["Pid"] == started


def test_sync_all_brings_every_running_workspace_to_this_perry(
    perry: Perry,
) -> None:
    for name in ("one", "two", "three"):
        perry.ok("workspace", "init", name)
    perry.ok("workspace", "stop", "three")
    perry.ok("workspace", "exec", "two", *KILL_WORKER)
    said = perry.ok("workspace", "sync", "--all")
    assert [line for line in said.splitlines() if line.endswith(":")] == ["one:", "two:"]
    assert said.count("is ready") == 2
    assert "runs already" in said
    states = {
        view["name"]: view["health"] for view in perry.json("workspace", "list")["workspaces"]
    }
    assert states == {"one": "healthy", "two": "healthy", "three": "stopped"}
    answer = perry.json("workspace", "sync", "--all")
    assert [ready["workspace"]["name"] for ready in answer["workspaces"]] == ["one", "two"]
