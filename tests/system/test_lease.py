"""Two servers on one database: the second waits for a dead one's lease only, and one that stood still ends itself."""

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.access.accounts import add_now
from proxy.access.tokens import create_now
from proxy.base.database import Database, sqlite_url
from tests.backend_pool.rig import engine_get
from tests.cluster import Cluster, Person, start_cluster
from tests.engines import Engine, start_engine
from tests.system.inside import becomes
from tests.system.people import Someone, painting, until_idle

LEASE_S = "2"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A backend that belongs to neither."""
    running = start_engine(tmp_path / "engine", "--step-ms", "10")
    yield running
    running.kill()


def shared(tmp_path: Path) -> tuple[str, dict[str, str]]:
    """A database for both, and the setting that names it."""
    url = sqlite_url(tmp_path / "shared.db")
    return url, {"COMFY_CLUSTER_DATABASE_URL": url, "COMFY_CLUSTER_LEASE_S": LEASE_S}


def account(url: str) -> Person:
    db = Database(url)
    try:
        row = add_now(db, "ann", "a password of ann", is_admin=False)
        return Person(row.name, "a password of ann", create_now(db, "ann", "test"), row.slug, row.key)
    finally:
        db.close()


async def test_a_server_that_stood_still_for_longer_than_its_lease_gives_way(tmp_path: Path, engine: Engine) -> None:
    """Stopped with a job rendering and one waiting: the next one carries both on, the first ends when it goes on."""
    url, env = shared(tmp_path)
    pool = ("--engines", "0", "--backend", engine.url)
    first: Cluster = await asyncio.to_thread(start_cluster, tmp_path / "a", *pool, env=env)
    try:
        person = await asyncio.to_thread(account, url)
        someone = Someone(first, person)
        async with someone.comfy.socket("tab") as socket:
            jobs = [await someone.comfy.submit(painting(seed, 100, "kept"), "tab") for seed in (1, 2)]
            await socket.until(lambda frame: frame.kind == "progress")
            first.process.send_signal(signal.SIGSTOP)
        (tmp_path / "b" / "data").mkdir(parents=True)
        shutil.copy(first.data_dir / "secret.key", tmp_path / "b" / "data")  # servers of one cluster share it
        second = await asyncio.to_thread(start_cluster, tmp_path / "b", *pool, env=env)
        with second:
            os.kill(first.process.pid, signal.SIGCONT)
            assert await asyncio.to_thread(first.process.wait, 60.0) == 1
            assert "taken over" in first.log()
            after = Someone(second, person)
            async with after.comfy.socket("tab") as socket:
                await until_idle(socket)
            assert await after.ids() == ([], [], jobs)
            rows = (await after.comfy.get("/cluster/api/v1/jobs")).json()["jobs"]
            assert [(row["state"], row["attempt"]) for row in rows] == [("succeeded", 1)] * 2
            assert [str(path.relative_to(after.folder)) for path in after.files()] == [
                "output/kept_00001_.png",
                "output/kept_00002_.png",
            ]
            counters = await engine_get(engine.url, "/engine")
            assert counters["counters"]["jobs_run"] == 2
            await after.comfy.close()
        await someone.comfy.close()
    finally:
        first.clean()


async def test_a_second_server_is_refused_while_the_first_one_lives(tmp_path: Path) -> None:
    """It says whose the database is, and the first one goes on."""
    url, env = shared(tmp_path)
    first: Cluster = await asyncio.to_thread(start_cluster, tmp_path / "a", "--engines", "1", env=env)
    with first:
        person = await asyncio.to_thread(account, url)
        with pytest.raises(RuntimeError, match=r"did not start \(2\)") as refusal:
            await asyncio.to_thread(start_cluster, tmp_path / "b", "--engines", "1", env=env)
        assert "works with this database" in str(refusal.value) and str(first.data_dir) in str(refusal.value)
        someone = Someone(first, person)
        prompt_id = await someone.runs(painting(1, 3, "kept"))
        assert (await someone.job(prompt_id))["status"] == "completed"
        await becomes(lambda: [path.name for path in someone.files()] == ["kept_00001_.png"])
        await someone.comfy.close()
