"""Who is placed where, on real engines: turns, limits, lanes, priorities, warm backends, labels, memory."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from backend_pool.books.share import Share
from backend_pool.books.shares import Reserved
from backend_pool.job_state import JobState
from backend_pool.lane import Lane
from backend_pool.model import Backend, Job
from backend_pool.placement.values import Choice
from proxy.base.clock import now_ms
from proxy.base.settings import Settings
from tests.backend_pool.conftest import Start
from tests.backend_pool.default_shares import DefaultShares
from tests.backend_pool.graphs import sampled, saved
from tests.backend_pool.rig import QUICK, Rig, arm, disarm, rig

SD15, SDXL = "v1-5-pruned-emaonly-fp16.safetensors", "sd_xl_base_1.0.safetensors"


class Parts(DefaultShares):
    """Shares of some users by hand."""

    def __init__(self, **parts: Share) -> None:
        super().__init__(Settings.model_validate(QUICK))
        self.parts = {int(user.removeprefix("user")): share for user, share in parts.items()}
        self.no: dict[int, str] = {}
        self.held: dict[int, Reserved] = {}

    def share(self, user_id: int) -> Share:
        return self.parts.get(user_id) or super().share(user_id)

    def blocked(self, user_id: int) -> str | None:
        return self.no.get(user_id)

    def reserved(self, backend_id: int, _labels: object, _now_ms: int) -> Reserved | None:
        return self.held.get(backend_id)


def of(checkpoint: str) -> Any:
    """A short job with that checkpoint."""
    prompt = sampled(1)
    prompt["4"]["inputs"]["ckpt_name"] = checkpoint
    return prompt


async def in_order(r: Rig, jobs: list[tuple[str, int]]) -> list[Job]:
    """These jobs, ended, in the order in which they were given to backends."""
    done = [(await r.final(prompt_id, user))[0] for prompt_id, user in jobs]
    assert all(job.state is JobState.SUCCEEDED for job in done)
    return sorted(done, key=lambda job: (job.assigned_ms or 0, job.key))


async def blocker(r: Rig, user_id: int = 9) -> str:
    """A long job that keeps the only backend."""
    prompt_id = await r.submit(sampled(10_000), user_id)
    await r.heard.until(prompt_id, "execution_start")
    return prompt_id


async def test_a_light_user_waits_for_one_job_of_a_heavy_one(tmp_path: Path, start: Start) -> None:
    """However many that one has queued; and the heavy one goes on afterwards in its own order."""
    async with rig(tmp_path, start("--step-ms", "20").url) as r:
        long = await blocker(r)
        heavy = [await r.submit(saved(), 1) for _ in range(8)]
        light = await r.submit(saved(), 2)
        await r.cancel(long, 9)
        placed = await in_order(r, [*((one, 1) for one in heavy), (light, 2)])
        assert [job.user_id for job in placed].index(2) <= 1
        assert [job.prompt_id for job in placed if job.user_id == 1] == heavy


async def test_nothing_is_placed_by_what_may_have_changed(tmp_path: Path, urls: list[str]) -> None:
    """Thousands of jobs are judged anew in parts; one that waits for that is passed by, and placed afterwards."""
    async with rig(tmp_path, urls[0]) as r:
        long = await blocker(r)
        job = (await r.entry(await r.submit(saved())))[0]
        turns, mirror = r.dispatcher.turns, r.dispatcher.mirror
        await r.eventually(lambda: job.key in turns.line and not turns.behind)
        turns.know([1])  # without another sync
        assert turns.behind and turns.started(Choice(job.key, 1)) is None
        assert job.key not in turns.placed and job.key in mirror and job.key in turns.line
        r.dispatcher.ring()
        await r.eventually(lambda: not turns.behind)
        await r.cancel(long, 9)
        assert (await r.final(job.prompt_id))[0].state is JobState.SUCCEEDED


async def test_a_user_runs_as_many_jobs_as_the_share_says(tmp_path: Path, urls: list[str]) -> None:
    """One by default, two for those who may."""
    async with rig(tmp_path, *urls) as r:
        r.share_by(Parts(user2=Share(running_limit=2)))
        members = list(r.pool.members.values())
        first = [await r.submit(sampled(10_000), 1) for _ in range(2)]
        await r.heard.until(first[0], "execution_start")
        await r.eventually(lambda: r.dispatcher.turns.heads() == [] and len(r.dispatcher.mirror) == 1)
        assert sum(member.job is not None for member in members) == 1
        for prompt_id in first:
            await r.cancel(prompt_id, 1)
        await r.heard.ended(first[0])
        second = [await r.submit(sampled(10_000), 2) for _ in range(3)]
        for prompt_id in second[:2]:
            await r.heard.until(prompt_id, "execution_start")
        assert all(member.job is not None for member in members)
        for prompt_id in second:
            await r.cancel(prompt_id, 2)
        for prompt_id in second[:2]:
            await r.heard.ended(prompt_id)


async def test_priorities_lanes_and_fronts(tmp_path: Path, start: Start) -> None:
    """Of one user: the highest priority first, then the front; another's interactive job before batch work."""
    async with rig(tmp_path, start("--step-ms", "20").url) as r:
        long = await blocker(r)
        batch = [await r.submit(saved(), 1, lane=Lane.BATCH) for _ in range(2)]
        plain = await r.submit(saved(), 1)
        front = await r.submit(saved(), 1, front=True)
        urgent = await r.submit(saved(), 1, priority=5)
        other = [await r.submit(saved(), 2) for _ in range(2)]
        await r.cancel(long, 9)
        placed = await in_order(
            r, [*((one, 1) for one in (*batch, plain, front, urgent)), *((one, 2) for one in other)]
        )
        ids = [job.prompt_id for job in placed]
        assert ids[0] == urgent and ids[-2:] == batch
        assert [one for one in ids if one in (plain, front)] == [front, plain]


async def test_a_job_goes_where_its_model_is_loaded(tmp_path: Path, start: Start) -> None:
    """Two models, two backends, two users: each stays with its own, and what was saved is counted."""
    engines = [start("--step-ms", "20", "--vram-mb", "7000") for _ in range(2)]
    async with rig(tmp_path, *(engine.url for engine in engines)) as r:
        homes: dict[str, set[int | None]] = {SD15: set(), SDXL: set()}
        for _ in range(3):
            for user, model in ((1, SD15), (2, SDXL)):
                homes[model].add((await r.run(of(model), user))[0].backend_id)
        assert all(len(places) == 1 for places in homes.values()) and homes[SD15] != homes[SDXL]
        found = {s.name: s.value for metric in r.dispatcher.gaps.collect() for s in metric.samples if not s.labels}
        assert found["comfy_cluster_model_loads_saved_total"] == 4
        assert found["comfy_cluster_backend_gap_seconds_count"] == 6


async def test_a_cold_backend_is_forgotten_to_be_warm(tmp_path: Path, start: Start) -> None:
    """One that was away may have been started anew."""
    engine = start("--step-ms", "20")
    async with rig(tmp_path, engine.url) as r:
        await r.run(of(SD15))
        member = r.pool.members[1]
        assert member.warmth.models == {f"checkpoints:{SD15}"} and member.warmth.user_id == 1
        engine.kill()
        await r.eventually(lambda: member.gone.is_set() and not member.warmth.models)
        assert member.warmth.user_id is None


async def test_labels_memory_and_what_to_avoid(tmp_path: Path, start: Start) -> None:
    """Each of them decides where a job may run, live; and says so while it waits."""
    small, large = start("--vram-mb", "8000", "--step-ms", "20"), start("--vram-mb", "24000", "--step-ms", "20")
    async with rig(tmp_path, small.url, large.url) as r:
        for _ in range(2):
            assert (await r.run(saved(), vram_mb=8000))[0].backend_id == 2
        waits = await r.submit(saved(), labels=["a100"])
        seq = (await r.entry(waits))[0].key
        await r.eventually(lambda: r.dispatcher.reason(seq) == "waiting for a backend with the label a100")
        await asyncio.to_thread(r.db.write_now, lambda s: setattr(s.get_one(Backend, 1), "labels", ["a100", "fast"]))
        r.pool.wake()
        assert (await r.final(waits))[0].backend_id == 1
        r.pool.members[2].done = 0  # else the one that had fewer jobs is chosen
        job = await r.submit(saved(), 3)
        assert (await r.final(job, 3))[0].backend_id == 2
        long = [await r.submit(sampled(10_000), 8), await r.submit(sampled(10_000), 9)]
        for prompt_id in long:
            await r.heard.until(prompt_id, "execution_start")
        avoiding = await r.submit(saved(), 4)
        seq = (await r.entry(avoiding, 4))[0].key
        await asyncio.to_thread(r.db.write_now, lambda s: setattr(s.get_one(Job, seq), "avoid", [1, 7]))
        r.dispatcher.turns.gone(seq)  # as after the requeue that notes it
        r.dispatcher.mirror.touch(4)
        for prompt_id, user in zip(long, (8, 9), strict=True):
            await r.cancel(prompt_id, user)
        assert (await r.final(avoiding, 4))[0].backend_id == 2


async def test_reservations_and_quotas_are_kept(tmp_path: Path, start: Start) -> None:
    """A reserved backend runs its group's jobs alone; nobody whose quota is used up starts anything."""
    async with rig(tmp_path, start("--step-ms", "20").url) as r:
        parts = Parts(user2=Share(group="lab", group_id=5))
        now = now_ms()
        parts.held[1] = Reserved(5, now - 1000, now + 3_600_000)
        parts.no[3] = "your group has used its GPU time for today"
        r.share_by(parts)
        other = await r.submit(saved(), 1)
        blocked = await r.submit(saved(), 3)
        assert (await r.run(saved(), 2))[0].state is JobState.SUCCEEDED
        seq = (await r.entry(blocked, 3))[0].key
        await r.eventually(lambda: r.dispatcher.reason(seq) == parts.no[3])
        assert (await r.entry(other))[0].state is JobState.QUEUED
        parts.held.clear()
        r.dispatcher.shares_changed()
        assert (await r.final(other))[0].state is JobState.SUCCEEDED
        parts.no.clear()
        r.dispatcher.shares_changed()
        assert (await r.final(blocked, 3))[0].state is JobState.SUCCEEDED


async def test_a_lost_job_keeps_its_place(tmp_path: Path, start: Start) -> None:
    """It comes before what its user queued after it, and what was lost is not charged."""
    engine = start("--step-ms", "20")
    async with rig(tmp_path, engine.url) as r:
        await arm(engine.url, fault="hang_job", node="KSampler", step=1)
        first = await r.submit(sampled(3))
        await r.heard.until(first, "execution_start")
        second = await r.submit(saved())
        turns = r.dispatcher.turns
        lost = (await r.entry(first))[0]
        r.pool.members[1].gone.set()  # as when it does not answer any more
        await r.eventually(lambda: lost.key not in turns.placed)
        assert turns.line.virtual_s(1) == 0.0
        await disarm(engine.url)
        placed = await in_order(r, [(first, 1), (second, 1)])
        assert [(job.prompt_id, job.attempt) for job in placed] == [(first, 2), (second, 1)]
        states = [state for _, state, *_ in placed[0].trail]
        assert states.count("queued") == 2 and states.count("assigned") == 2
        charged_s = sum(job.gpu_ms for job in placed) / 1000
        await r.eventually(lambda: not turns.placed)
        assert turns.line.virtual_s(1) >= charged_s > 0


@pytest.mark.parametrize("order", ["fair", "fifo", "turns"])
async def test_the_order_is_a_setting(tmp_path: Path, urls: list[str], order: str) -> None:
    """All of them place every job."""
    async with rig(tmp_path, urls[0], placement=order, running_limit=3 if order == "fifo" else 1) as r:
        jobs = [(await r.submit(saved(), user), user) for user in (1, 1, 1, 2)]
        placed = await in_order(r, jobs)
        users = [job.user_id for job in placed]
        assert users == [1, 1, 1, 2] if order == "fifo" else users.index(2) <= 2
