"""Climbing the failure ladder with real engines: memory, broken GPUs, jobs that hang, limits."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, select

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.books.tables import LedgerEntry
from backend_pool.job_state import JobState
from backend_pool.runs.harms import BARRED
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import sampled, saved
from tests.backend_pool.rig import Rig, arm, disarm, engine_get, rig
from tests.engine.graphs import node

PATIENT: dict[str, Any] = {"job_silence_s": 0.8, "cancel_grace_s": 0.8}


def early(prompt: dict[str, Any]) -> dict[str, Any]:
    """With a picture that is saved before the rest may fail."""
    return prompt | {"20": saved()["1"], "21": node("SaveImage", images=["20", 0], filename_prefix="early")}


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else can write to the database."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def trusted(r: Rig, member: Member) -> None:
    """Wait until it may have jobs."""
    await r.eventually(lambda: member.health is Health.UP and member.row.quarantine is None)


async def test_memory_that_was_short_once_is_freed_and_the_job_told_as_one_run(tmp_path: Path, start: Start) -> None:
    """No error reaches the user; what the first attempt made is not doubled; the story says what happened."""
    engine = start("--step-ms", "10")
    async with rig(tmp_path, engine.url) as r:
        await arm(engine.url, fault="oom", node="KSampler", step=6)
        job, document = await r.run(early(sampled()))
        assert job.state is JobState.SUCCEEDED and job.attempt == 2 and job.freed
        with Session(r.db.reader) as session:
            entry = session.exec(select(LedgerEntry)).one()
        assert entry.gpu_ms > entry.run_ms, "what ran before the memory ran out is charged too"
        assert r.files() == ["output/ComfyUI_00001_.png", "output/early_00001_.png"]
        kinds = r.heard.kinds(job.prompt_id)
        assert "execution_error" not in kinds and kinds.count("execution_success") == 1
        assert kinds[-2:] == ["execution_success", "executing"]
        assert [m[0] for m in document.messages].count("execution_error") == 0
        states = [(entry[1], entry[3]) for entry in job.trail]
        assert states[-4:-1] == [("assigned", 1), ("running", 1), ("assigned", 1)] or states.count(("assigned", 1)) == 2
        assert any("memory was freed" in entry[2] for entry in job.trail)
        assert r.health() == [Health.UP]
        assert (await engine_get(engine.url, "/history")) == {}


async def test_short_memory_leads_to_a_larger_backend(tmp_path: Path, start: Start) -> None:
    """The small ones are not tried again, the job keeps what it learned."""
    small, equal, large = (start("--vram-mb", size) for size in ("8192", "8192", "16384"))
    async with rig(tmp_path, small.url, equal.url, large.url) as r:
        for engine in (small, equal):
            await arm(engine.url, fault="oom", node="KSampler", count=99)
        job, _ = await r.run(sampled())
        assert job.state is JobState.SUCCEEDED and job.backend_id == 3
        tried = [entry[3] for entry in job.trail if entry[1] == "assigned"]
        assert tried[-1] == 3 and job.vram_mb in (0, 8192)
        assert "execution_error" not in r.heard.kinds(job.prompt_id)


async def test_memory_that_is_short_everywhere_is_comfyui_s_error_and_advice(tmp_path: Path, start: Start) -> None:
    """After one more try; what was made before stays."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        await arm(engine.url, fault="oom", node="KSampler", count=99)
        job, document = await r.run(early(sampled()))
        error = r.heard.first(job.prompt_id, "execution_error")
        assert job.state is JobState.FAILED and job.attempt == 2
        assert error["exception_type"] == "torch.OutOfMemoryError" and error["node_type"] == "KSampler"
        assert "CUDA out of memory" in error["exception_message"] and "smaller" in error["exception_message"]
        assert document.messages[-1] == ["execution_error", error]
        assert r.heard.kinds(job.prompt_id).count("execution_error") == 1
        assert r.files() == ["output/early_00001_.png"]


async def test_a_broken_gpu_is_quarantined_and_the_job_runs_elsewhere(tmp_path: Path, start: Start) -> None:
    """Its trials fail until it is repaired; then it gets jobs again."""
    broken, good = start(), start()
    async with rig(tmp_path, broken.url, good.url) as r:
        await arm(broken.url, fault="cuda", node="KSampler")
        await arm(good.url, fault="cuda", node="ImageInvert")  # never asked for: the good one stays good
        member = r.pool.members[1]
        job, _ = await r.run(sampled())
        assert job.state is JobState.SUCCEEDED and job.backend_id == 2 and job.avoid == [1]
        assert "execution_error" not in r.heard.kinds(job.prompt_id)
        await r.eventually(lambda: "a trial job failed" in str(member.error or member.row.quarantine))
        assert member.health is Health.QUARANTINED and not member.idle
        assert (await r.run(saved()))[0].backend_id == 2
        await disarm(broken.url)
        await trusted(r, member)
        assert (await engine_get(broken.url, "/queue")) == {"queue_running": [], "queue_pending": []}


async def test_the_only_backend_s_job_waits_for_its_repair(tmp_path: Path, start: Start) -> None:
    """Quarantine is no loss: the job runs once a trial has succeeded, at its old place."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        await arm(engine.url, fault="cuda", node="KSampler")
        prompt_id = await r.submit(sampled())
        await r.eventually(lambda: r.health() == [Health.QUARANTINED])
        second = await r.submit(saved())
        await disarm(engine.url)
        for each in (prompt_id, second):
            job, _ = await r.final(each)
            assert job.state is JobState.SUCCEEDED
        order = [name for name, kind, _ in r.heard.events if kind == "execution_success"]
        assert order == [prompt_id, second]


async def test_a_job_that_breaks_every_gpu_is_stopped(tmp_path: Path, start: Start) -> None:
    """Three backends, though more attempts are left."""
    engines = [start() for _ in range(3)]
    async with rig(tmp_path, *(engine.url for engine in engines), job_attempts=9) as r:
        for engine in engines:
            await arm(engine.url, fault="cuda", node="KSampler")
        job, _ = await r.run(sampled())
        error = r.heard.first(job.prompt_id, "execution_error")
        assert job.state is JobState.FAILED and job.attempt == 3
        assert error["exception_type"] == "JobKillsBackends" and r.files() == []
        for engine in engines:
            await disarm(engine.url)
        for member in r.pool.members.values():
            await trusted(r, member)
        again, other = await r.run(sampled(seed=5)), await r.run(saved())
        assert (again[0].state, other[0].state) == (JobState.FAILED, JobState.SUCCEEDED)
        assert r.heard.first(again[0].prompt_id, "execution_error")["exception_message"] == BARRED
        assert (await r.run(sampled(), 2))[0].state is JobState.SUCCEEDED


@pytest.mark.parametrize("heeds", [True, False])
async def test_a_job_that_stands_still_goes_elsewhere(tmp_path: Path, start: Start, heeds: bool) -> None:
    """The backend that heeds the interrupt is asked to prove itself; one that does not is quarantined."""
    hung, good = start(), start()
    async with rig(tmp_path, hung.url, good.url, **PATIENT) as r:
        await arm(hung.url, fault="hang_job", node="KSampler", heeds_interrupt=heeds)
        job, _ = await r.run(sampled())
        member = r.pool.members[1]
        assert job.state is JobState.SUCCEEDED and job.backend_id == 2 and job.avoid == [1]
        assert r.files() == ["output/ComfyUI_00001_.png"] and job.gpu_ms >= 800
        assert r.dispatcher.turns.line.virtual_s(job.user_id) >= job.gpu_ms / 1000 - 0.001  # and sending it
        if not heeds:
            assert member.health is Health.QUARANTINED and "no sign of life" in str(member.row.quarantine)
            await disarm(hung.url)
        await trusted(r, member)


async def test_a_backend_without_a_voice_is_found_out(tmp_path: Path, start: Start) -> None:
    """It answers every question and tells nothing: a long job there counts as hung, a short one ends by the history."""
    engine = start("--step-ms", "20")
    async with rig(tmp_path, engine.url, job_silence_s=1.5, job_attempts=1) as r:
        await arm(engine.url, fault="mute", node="KSampler", count=1)
        assert (await r.run(sampled(steps=2)))[0].state is JobState.SUCCEEDED
        job, _ = await r.run(sampled(steps=5000))
        assert job.state is JobState.FAILED and job.gpu_ms >= 1500
        assert r.heard.first(job.prompt_id, "execution_error")["exception_type"] == "JobHung"


async def test_a_job_that_hangs_for_good_is_held_against_its_workflow_once(tmp_path: Path, start: Start) -> None:
    """Its backend is quarantined for it, and goes on with it; the user has other work done meanwhile."""
    hung, good = start(), start()
    async with rig(tmp_path, hung.url, good.url, **PATIENT, job_attempts=1) as r:
        await arm(hung.url, fault="hang_job", node="KSampler", heeds_interrupt=False)
        assert (await r.run(sampled()))[0].state is JobState.FAILED
        assert (await r.run(saved()))[0].backend_id == 2
        [moments] = r.dispatcher.carrier.harms._known.values()
        assert len(moments.broke) == 1


@pytest.mark.parametrize("heeds", [True, False])
async def test_a_job_over_its_limit_fails_and_is_charged(tmp_path: Path, start: Start, heeds: bool) -> None:
    """What it made stays; it is not tried again; a backend that does not let go gets nothing before it has."""
    engine = start()
    async with rig(tmp_path, engine.url, run_limit_s=0.5, cancel_grace_s=0.5) as r:
        await arm(engine.url, fault="hang_job", node="KSampler", heeds_interrupt=heeds)
        job, document = await r.run(early(sampled()))
        error = r.heard.first(job.prompt_id, "execution_error")
        assert job.state is JobState.FAILED and job.attempt == 1 and job.gpu_ms >= 500
        assert error["exception_type"] == "JobTooLong" and "0.5 seconds, the limit of" in error["exception_message"]
        assert document.messages == [["execution_error", error]] and r.files() == ["output/early_00001_.png"]
        await disarm(engine.url)
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED


async def test_a_job_does_not_wait_for_a_dead_backend_to_avoid_a_living_one(tmp_path: Path, start: Start) -> None:
    """The one it left behind is well again; the other never comes back."""
    first, second = start(), start()
    async with rig(tmp_path, first.url, second.url, **PATIENT) as r:
        second.kill()
        await r.eventually(lambda: r.health()[1] is Health.DOWN)
        await arm(first.url, fault="hang_job", node="KSampler", heeds_interrupt=True)
        job, _ = await r.run(sampled())
        assert job.state is JobState.SUCCEEDED and job.backend_id == 1
        assert job.attempt == 2 and job.avoid == [1]


async def test_what_a_job_took_is_booked(tmp_path: Path, start: Start) -> None:
    """The backend's own time, by its history, with the model's loading, and the time that the job stood still."""
    engine = start("--step-ms", "20", "--model-load-ms", "100")
    async with rig(tmp_path, engine.url, **PATIENT) as r:
        await arm(engine.url, fault="hang_job", node="KSampler", heeds_interrupt=True)
        job, _ = await r.run(sampled(steps=10))
        assert job.attempt == 2 and job.rendered_ms is not None and job.started_ms is not None
        assert job.assigned_ms is not None and 800 <= job.gpu_ms - 200 <= job.rendered_ms - job.created_ms
        with Session(r.db.reader) as session:
            entry = session.exec(select(LedgerEntry)).one()
        assert (entry.gpu_ms, entry.load_ms, entry.attempts) == (job.gpu_ms, job.load_ms, 2)
        assert entry.backend == r.pool.members[1].row.name and "embedded engine" in entry.device


async def test_a_database_that_is_away_loses_no_rung(tmp_path: Path, start: Start) -> None:
    """The job waits where it is until the database takes what the ladder decided; then it goes on."""
    broken, good = start(), start()
    async with rig(tmp_path, broken.url, good.url) as r:
        await arm(broken.url, fault="cuda", node="KSampler", step=20)
        prompt_id = await r.submit(sampled(steps=60))
        await r.heard.until(prompt_id, "progress")
        with locked(tmp_path / "cluster.db"):
            await r.eventually(lambda: r.pool.members[1].health is Health.QUARANTINED)
        job, _ = await r.final(prompt_id)
        assert job.state is JobState.SUCCEEDED and job.backend_id == 2
        await r.eventually(lambda: r.pool.members[1].row.quarantine is not None)


async def test_a_cancelled_job_that_is_never_let_go_costs_the_backend_its_place(tmp_path: Path, start: Start) -> None:
    """Its user is free at once; the backend is quarantined until it has let go and shown that it works."""
    engine = start()
    async with rig(tmp_path, engine.url, cancel_grace_s=0.3, unheeded_limit_s=0.3) as r:
        await arm(engine.url, fault="hang_job", node="KSampler")
        prompt_id = await r.submit(sampled())
        await r.heard.until(prompt_id, "execution_start")
        await r.cancel(prompt_id)
        assert (await r.final(prompt_id))[0].state is JobState.CANCELLED
        await r.eventually(lambda: r.health() == [Health.QUARANTINED])
        await disarm(engine.url)
        await trusted(r, r.pool.members[1])
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED


async def test_a_cancel_between_two_attempts_is_honoured(tmp_path: Path, start: Start) -> None:
    """While the memory is being freed, or while the second attempt is on its way."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        for pause in (0.0, 0.2, 0.45, 0.6):
            await arm(engine.url, fault="oom", node="KSampler")
            prompt_id = await r.submit(sampled(steps=500))
            async with asyncio.timeout(30):
                while not (await engine_get(engine.url, "/engine"))["counters"]["faults_struck"]:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(pause)  # somewhere on the way: any place is right
            await r.cancel(prompt_id)
            job, document = await r.final(prompt_id)
            assert job.state is JobState.CANCELLED and document.messages[-1][0] == "execution_interrupted"
            assert "execution_error" not in r.heard.kinds(prompt_id)
            await disarm(engine.url)
        assert r.files() == []
