"""A server that runs as root: each user's session and files have a user id of their own, whoever writes them."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, start_cluster
from tests.contract.graphs import node
from tests.system.people import Someone, painting
from tests.user_sessions.studio import short_directory

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NOT ROOT: SESSIONS CANNOT HAVE USER IDS OF THEIR OWN")

REACHABLE = (sys.executable, "-m", "tests.user_sessions.reachable")
FIRST = 2_000_300_000


@pytest.fixture
def place() -> Iterator[Path]:
    """Others may pass it, as they may a directory in /srv."""
    with short_directory() as path:
        path.chmod(0o711)
        yield path


async def start(place: Path, uids: str = "auto") -> Cluster:
    """A server on its data directory, in a place where other ids can read this Python."""
    env = {"COMFY_CLUSTER_SESSION_UIDS": uids}
    return await asyncio.to_thread(start_cluster, place, "--engines", "1", env=env, wrapper=REACHABLE)


async def use(someone: Someone, seed: int) -> None:
    """Upload a picture, show it, have it rendered and show what came of it."""
    source = await someone.comfy.get("/view", params={"filename": "missing.png"})
    assert source.status == 404
    picture = await someone.picture(await someone.runs(painting(seed, prefix="sub/dir/mine")))
    name = (await someone.comfy.upload(f"me-{seed}.png", picture)).json()["name"]
    copied = {"1": node("LoadImage", image=name), "9": node("SaveImage", images=["1", 0], filename_prefix="copy")}
    assert await someone.picture(await someone.runs(copied))
    assert (await someone.comfy.get("/userdata", params={"dir": "workflows"})).status == 200


def owners(someone: Someone) -> set[int]:
    """Of everything in the directories of theirs."""
    return {path.lstat().st_uid for kind in ("input", "output", "temp", "user") for path in everything(someone, kind)}


def everything(someone: Someone, kind: str) -> list[Path]:
    """A directory of theirs and all in it."""
    return [someone.folder / kind, *(someone.folder / kind).rglob("*")]


async def test_files_belong_to_users_and_change_hands_with_the_setting(place: Path) -> None:
    cluster = await start(place)
    try:
        people = [Someone(cluster, await asyncio.to_thread(cluster.user, name)) for name in ("ann", "ben")]
        for number, someone in enumerate(people):
            await use(someone, number)
            assert owners(someone) == {FIRST + number}
            assert len(someone.files()) == 2
        assert "share one user id" not in (place / "data/logs/session-host.log").read_text()

        await asyncio.to_thread(cluster.kill)
        cluster = await restarted(place, people)  # the sessions have lived on
        await use(people[0], 7)
        assert owners(people[0]) == {FIRST}

        await asyncio.to_thread(cluster.stop)
        cluster = await restarted(place, people, "off")
        await use(people[0], 8)
        assert owners(people[0]) == {0}
        assert cluster.data_dir.stat().st_mode & 0o777 == 0o700
        for someone in people:
            await someone.comfy.close()
        await asyncio.to_thread(cluster.stop)
    finally:
        await asyncio.to_thread(cluster.clean)


async def restarted(place: Path, people: list[Someone], uids: str = "auto") -> Cluster:
    """A new server on the same data, and everybody connected to it."""
    cluster = await start(place, uids)
    for index, someone in enumerate(people):
        await someone.comfy.close()
        people[index] = Someone(cluster, someone.person)
    return cluster
