"""What survives: virtual times over a restart, the line over a database that is away."""

import asyncio
import sqlite3
from pathlib import Path

from backend_pool.job_state import JobState
from backend_pool.job_store import JobStore
from proxy.base.settings import Settings
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import saved
from tests.backend_pool.rig import QUICK, Heard, Rig, assemble, open_database, rig, running


def again(root: Path) -> Rig:
    """A second proxy over what the first one left."""
    settings = Settings.model_validate({"data_dir": root, **QUICK})
    db = open_database(root)
    store = JobStore(db, settings.queue_limit, settings.history_limit)
    return assemble(root, listener=Heard(), store=store, db=db, settings=settings)


async def test_turns_survive_a_restart(tmp_path: Path, urls: list[str]) -> None:
    """Who had much before comes after who had little, although its job is older."""
    async with rig(tmp_path, urls[0]) as r:
        await r.registry.remove(1)
        await r.pool.refresh()
        jobs = [(await r.submit(saved(), user), user) for user in (1, 1, 2, 3)]
        await r.store.queue.store_virtual_times({1: 500.0, 2: 40.0})
    r = again(tmp_path)
    async with running(r):
        await r.join(urls[0])
        done = {prompt_id: (await r.final(prompt_id, user))[0] for prompt_id, user in jobs}
        users = [job.user_id for job in sorted(done.values(), key=lambda job: job.assigned_ms or 0)]
        assert set(users[:2]) == {2, 3} and users[2:] == [1, 1]
        kept = await r.store.queue.virtual_times()
        assert kept[1] >= 500.0 and kept[3] >= 40.0  # of whom nothing was stored: at the least of the others


async def test_who_comes_back_after_a_restart_has_had_what_they_had(tmp_path: Path, urls: list[str]) -> None:
    """Also when they had nothing waiting while it happened; only the first word of it counts."""
    async with rig(tmp_path, urls[0]) as r:
        await r.store.queue.store_virtual_times({1: 300.0})
    r = again(tmp_path)
    async with running(r):
        await r.join()
        for _ in range(2):
            job, _ = await r.run(saved(), 1)
            assert job.state is JobState.SUCCEEDED
        assert 300.0 < r.dispatcher._turns.line.virtual_s(1) < 305.0


async def test_virtual_times_are_those_of_the_ended_jobs(tmp_path: Path, start: Start) -> None:
    """Stored with each job's end, in GPU-seconds by the weight."""
    async with rig(tmp_path, start("--step-ms", "1").url) as r:
        job, _ = await r.run(saved())
        (kept,) = (await r.store.queue.virtual_times()).values()
        assert job.state is JobState.SUCCEEDED
        assert abs(kept - job.gpu_ms / 1000) < 0.05 and kept == r.dispatcher._turns.line.virtual_s(1)


async def test_a_database_that_is_locked_for_a_while(tmp_path: Path, urls: list[str]) -> None:
    """Nothing is lost, nobody runs twice."""
    async with rig(tmp_path, urls[0]) as r:
        r.db.writer.dispose()
        jobs = [await r.submit(saved(), user) for user in (1, 2)]
        other = await asyncio.to_thread(sqlite3.connect, tmp_path / "cluster.db", check_same_thread=False)
        await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
        waiting = [await asyncio.to_thread(other.execute, "SELECT count(*) FROM jobs WHERE attempt > 1")]
        assert waiting[0].fetchone() == (0,)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(other.rollback)
        await asyncio.to_thread(other.close)
        for prompt_id, user in zip(jobs, (1, 2), strict=True):
            job, _ = await r.final(prompt_id, user)
            assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
