"""Ending a job wherever it is: the user is free at once, the backend once it has really let go."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from sqlmodel import Session, select

from backend_pool.backends.health import Health
from backend_pool.books.tables import LedgerEntry
from backend_pool.job_state import JobState
from proxy.base.errors import DatabaseUnavailable
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import sampled, saved
from tests.backend_pool.rig import Rig, arm, disarm, engine_get, rig
from tests.engine.client import connect
from tests.engine.graphs import node


def charged(r: Rig, prompt_id: str) -> int:
    """Milliseconds by the ledger."""
    with Session(r.db.writer) as session:
        return session.exec(select(LedgerEntry.gpu_ms).where(LedgerEntry.prompt_id == prompt_id)).one()


async def interrupted(r: Rig, prompt_id: str, user_id: int = 1) -> None:
    """Check that the job ended as cancelled, told as ComfyUI tells it."""
    job, document = await r.final(prompt_id, user_id)
    assert job.state is JobState.CANCELLED
    assert r.heard.kinds(prompt_id)[-2:] == ["execution_interrupted", "executing"]
    assert r.heard.first(prompt_id, "execution_interrupted")["prompt_id"] == prompt_id
    assert document.messages[-1][0] == "execution_interrupted"


async def test_a_waiting_job_leaves_without_a_trace(tmp_path: Path, urls: list[str]) -> None:
    """As in ComfyUI: no history, no frames but `status`."""
    async with rig(tmp_path, urls[0]) as r:
        first = await r.submit(sampled(steps=20))
        second = await r.submit(saved())
        assert [job.state for job in await r.cancel(second)] == [JobState.CANCELLED]
        await r.final(first)
        assert await r.queries.one(1, second) is None and r.heard.of(second) == []
        assert await r.queries.remaining(1) == 0


async def test_a_running_job_is_interrupted(tmp_path: Path, urls: list[str]) -> None:
    """At its backend too, which is free for the next."""
    async with rig(tmp_path, urls[0]) as r:
        prompt_id = await r.submit(sampled(steps=2000))
        await r.heard.until(prompt_id, "progress")
        await r.cancel(prompt_id)
        await interrupted(r, prompt_id)
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED
        assert r.files() == ["output/ComfyUI_00001_.png"]


async def test_cancel_touches_one_user_s_job(tmp_path: Path, urls: list[str]) -> None:
    """Also when both run, and also when the ids are equal."""
    async with rig(tmp_path, *urls) as r:
        for user_id in (1, 2):
            await r.submit(sampled(steps=60), user_id, prompt_id="same")
        await r.eventually(lambda: [kind for _, kind, _ in r.heard.events].count("execution_start") == 2)
        assert len(await r.cancel("same", 1)) == 1
        await r.eventually(lambda: [kind for _, kind, _ in r.heard.events].count("execution_success") == 1)
        states = {}
        for user_id in (1, 2):
            await r.eventually(lambda: all(member.idle for member in r.pool.members.values()))
            states[user_id] = (await r.entry("same", user_id))[0].state
        assert states == {1: JobState.CANCELLED, 2: JobState.SUCCEEDED}


async def test_an_assigned_job_is_taken_out_of_the_backend_s_queue(tmp_path: Path, start: Start) -> None:
    """Somebody else's prompt runs there; that one is left alone."""
    engine = start()
    async with rig(tmp_path, engine.url) as r, connect(engine.url) as other:
        await arm(engine.url, fault="hang_job", node="KSampler", heeds_interrupt=True)
        foreign = await other.submit(sampled())
        await other.until("execution_start")
        prompt_id = await r.submit(saved())
        async with asyncio.timeout(30):
            while not (await engine_get(engine.url, "/queue"))["queue_pending"]:
                await asyncio.sleep(0.02)
        await r.cancel(prompt_id)
        await interrupted(r, prompt_id)
        queue = await engine_get(engine.url, "/queue")
        assert [item[1] for item in queue["queue_running"]] == [foreign] and queue["queue_pending"] == []


async def test_a_job_that_does_not_heed_its_cancel_stays_on_its_user_s_account(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends for the user, whose next one waits: else one user could hold all backends. Others go on elsewhere, the
    hung backend gets nothing until it has let go, and what that took is charged, once."""
    hung, good = start(), start()
    async with rig(tmp_path, hung.url, good.url, cancel_grace_s=0.5) as r:
        await arm(hung.url, fault="hang_job", node="KSampler", heeds_interrupt=False)
        prompt_id = await r.submit(sampled())
        await r.heard.until(prompt_id, lambda kind, data: kind == "executing" and data["node"] == "3")
        await r.cancel(prompt_id)
        await interrupted(r, prompt_id)
        member, told_ms, (job, _) = r.pool.members[1], charged(r, prompt_id), await r.entry(prompt_id)
        rebook, sums = r.store.rebook, list[dict[int, int]]()

        async def lost(gpu_ms: Mapping[int, int]) -> None:
            await rebook(gpu_ms)
            sums.append(dict(gpu_ms))
            if len(sums) == 1:
                raise DatabaseUnavailable("It went away.", "before its answer was read")

        monkeypatch.setattr(r.store, "rebook", lost)
        later = await r.submit(saved())
        for _ in range(3):
            assert not member.idle
            assert (await r.run(saved(), 2))[0].backend_id == 2
        waits = (await r.entry(later))[0]
        assert (waits.state, waits.attempt) == (JobState.QUEUED, 0)
        held = "a job of yours that was stopped has not let go of its GPU yet"
        await r.eventually(lambda: (of := r.dispatcher.outlooks.of(waits.key, 1)) is not None and of.reason == held)
        await disarm(hung.url)
        assert (await r.final(later))[0].state is JobState.SUCCEEDED
        assert await engine_get(hung.url, "/queue") == {"queue_running": [], "queue_pending": []}
        await r.eventually(lambda: len(sums) == 2)
        assert sums[0] == sums[1] == {job.key: charged(r, prompt_id)}
        assert charged(r, prompt_id) > told_ms


async def test_one_that_is_quarantined_for_it_lets_its_user_go(tmp_path: Path, start: Start) -> None:
    """It gets no jobs any more. That the workflow did so is held against it, other workflows run."""
    hung, good = start(), start()
    async with rig(tmp_path, hung.url, good.url, cancel_grace_s=0.3, unheeded_limit_s=0.3) as r:
        await arm(hung.url, fault="hang_job", node="KSampler", heeds_interrupt=False)
        prompt_id = await r.submit(sampled())
        await r.heard.until(prompt_id, lambda kind, data: kind == "executing" and data["node"] == "3")
        await r.cancel(prompt_id)
        await interrupted(r, prompt_id)
        assert (await r.run(saved()))[0].backend_id == 2
        assert r.health()[0] is Health.QUARANTINED
        [moments] = r.dispatcher.carrier.harms._known.values()
        assert len(moments.broke) == 1


async def test_cancel_while_files_are_fetched(tmp_path: Path, start: Start) -> None:
    """A transfer that takes for ever does not hold the user: what came whole stays, the rest leaves no trace."""
    engine = start()
    async with rig(tmp_path, engine.url, cancel_grace_s=0.3) as r:
        await arm(engine.url, fault="drop_ws", node="SaveImage")
        await arm(engine.url, fault="slow_view", bytes_per_s=1.0, count=100)
        prompt_id = await r.submit(saved())
        async with asyncio.timeout(30):
            while (await r.entry(prompt_id))[0].state is not JobState.COLLECTING:
                await asyncio.sleep(0.02)
        await r.cancel(prompt_id)
        await interrupted(r, prompt_id)
        assert r.files() == [] and not list(tmp_path.glob("users/**/*.part"))


async def test_a_job_given_back_and_then_cancelled_ends_its_tab_s_view(tmp_path: Path, start: Start) -> None:
    """The tab saw the first attempt begin: it is told the end though the job was waiting again; its files are gone."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        await arm(engine.url, fault="hang_job", node="KSampler")
        prompt = sampled() | {"20": saved()["1"], "21": node("SaveImage", images=["20", 0], filename_prefix="early")}
        prompt_id = await r.submit(prompt)
        await r.heard.until(prompt_id, "executed")
        assert r.files() == ["output/early_00001_.png"]
        engine.kill()
        async with asyncio.timeout(30):
            while (await r.entry(prompt_id))[0].state is not JobState.QUEUED:
                await asyncio.sleep(0.02)
        assert r.files() == []
        await r.cancel(prompt_id)
        assert r.heard.kinds(prompt_id)[-2:] == ["execution_interrupted", "executing"]
        assert await r.queries.remaining(1) == 0


async def test_a_cancel_that_races_with_the_start_is_not_lost(tmp_path: Path, urls: list[str]) -> None:
    """Wherever it lands between queue and backend, the job ends cancelled and the queue goes on."""
    async with rig(tmp_path, urls[0]) as r:
        for pause in range(12):
            prompt_id = await r.submit(sampled(steps=500))
            await asyncio.sleep(pause / 400)  # somewhere on the way: any place is right
            await r.cancel(prompt_id)
            await r.eventually(lambda: r.pool.members[1].idle and not r.pool.members[1].busy)
            found = await r.queries.one(1, prompt_id)
            assert found is None or found[0].state is JobState.CANCELLED
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED
        assert r.files() == ["output/ComfyUI_00001_.png"]
