"""What survives: virtual times over a restart, the line over a database that is away."""

import asyncio
import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from backend_pool.backends.registry import Registry
from backend_pool.job_state import FINAL, JobState
from backend_pool.jobs.store import JobStore
from proxy.base import database
from proxy.base.errors import DatabaseUnavailable
from proxy.base.settings import Settings
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import sampled, saved
from tests.backend_pool.rig import (
    QUICK,
    WAIT_S,
    Heard,
    Rig,
    assemble,
    engine_get,
    open_database,
    rig,
    running,
    submission,
)


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


async def test_what_a_backend_runs_is_taken_up_before_it_gets_another(tmp_path: Path, start: Start) -> None:
    """Else the second job waits at a backend that is busy, while the first counts as ended there."""
    engine = start("--step-ms", "20")
    async with rig(tmp_path, engine.url) as r:
        runs = await r.submit(sampled(10_000))
        await r.heard.until(runs, "progress")
        waits = await r.submit(saved(), 2)
    r = again(tmp_path)
    async with running(r):
        await r.eventually(lambda: any(member.busy for member in r.pool.members.values()))
        job = (await r.entry(runs))[0]
        assert [(member.job, member.collecting) for member in r.pool.members.values()] == [(job.key, set())]
        assert (await r.entry(waits, 2))[0].state is JobState.QUEUED
        await r.cancel(runs)
        assert (await r.final(waits, 2))[0].state is JobState.SUCCEEDED


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
        assert 300.0 < r.dispatcher.turns.line.virtual_s(1) < 305.0


async def test_virtual_times_are_those_of_the_ended_jobs(tmp_path: Path, start: Start) -> None:
    """Stored with each job's end, in GPU-seconds by the weight."""
    async with rig(tmp_path, start("--step-ms", "1").url) as r:
        job, _ = await r.run(saved())
        (kept,) = (await r.store.queue.virtual_times()).values()
        assert job.state is JobState.SUCCEEDED
        assert abs(kept - job.gpu_ms / 1000) < 0.05 and kept == r.dispatcher.turns.line.virtual_s(1)


async def test_turns_survive_a_kill(tmp_path: Path, start: Start) -> None:
    """What a job took is stored with its end: its user's next one, though older, comes after another's."""
    engine = start("--step-ms", "20")
    db = open_database(tmp_path)
    await Registry(db).add(engine.url)
    store = JobStore(db, 100, 100)
    await store.submit(submission(sampled(20), 1))
    await store.queue.store_virtual_times({1: 100.0, 2: 100.1})
    code = "import pathlib, sys, asyncio; from tests.backend_pool.pool_process import main"
    run = f"{code}; asyncio.run(main(pathlib.Path(sys.argv[1]), 'after finish'))"
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", run, str(tmp_path))
    assert await asyncio.wait_for(child.wait(), WAIT_S) == -signal.SIGKILL
    kept = await store.queue.virtual_times()
    assert kept[1] > 100.3 and kept[2] == 100.1
    jobs = [await store.submit(submission(saved(), user)) for user in (1, 2)]
    r = again(tmp_path)
    async with running(r):
        done = [(await r.final(job.prompt_id, job.user_id))[0] for job in jobs]
        assert all(job.state is JobState.SUCCEEDED and job.attempt == 1 for job in done)
        assert (done[1].assigned_ms or 0) < (done[0].assigned_ms or 0)
    await asyncio.to_thread(db.close)


async def test_a_database_that_is_locked_for_a_while(
    tmp_path: Path, urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that was acknowledged is lost, nobody runs twice; who submits meanwhile is told so."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.2)
    async with rig(tmp_path, urls[0]) as r:
        before = await jobs_run(urls[0])
        runs = await r.submit(sampled(60))
        waits = await r.submit(saved(), 2)
        await r.heard.until(runs, "execution_start")
        other = await asyncio.to_thread(sqlite3.connect, tmp_path / "cluster.db", 30.0, check_same_thread=False)
        await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable):
            await r.submit(saved(), 3)
        async with asyncio.timeout(WAIT_S):  # it ends in spite of it, and its end cannot be stored
            while await jobs_run(urls[0]) == before:
                await asyncio.sleep(0.02)
        with pytest.raises(DatabaseUnavailable):
            await r.store.cancel(2, [waits], frozenset(JobState))
        assert {(await r.entry(one, user))[0].state for one, user in ((runs, 1), (waits, 2))}.isdisjoint(FINAL)
        await asyncio.to_thread(other.rollback)
        await asyncio.to_thread(other.close)
        third = await r.submit(saved(), 3)
        for prompt_id, user in ((runs, 1), (waits, 2), (third, 3)):
            job, _ = await r.final(prompt_id, user)
            assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
        assert await jobs_run(urls[0]) == before + 3


async def jobs_run(url: str) -> int:
    """How many an engine has run."""
    return int((await engine_get(url, "/engine"))["counters"]["jobs_run"])
