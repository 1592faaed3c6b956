"""Drains with a deadline and idle backends, on real engines."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from backend_pool.backends.change import Change
from backend_pool.backends.housekeeping import Housekeeping
from backend_pool.backends.member import Member
from backend_pool.job_state import JobState
from backend_pool.model import BackendMode
from proxy.base.clock import now_ms
from proxy.base.settings import Settings
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import sampled, saved
from tests.backend_pool.rig import QUICK, WAIT_S, Rig, arm, disarm, engine_get, rig

HANG = {"fault": "hang_job", "node": "KSampler", "step": 2, "heeds_interrupt": True}


@contextlib.asynccontextmanager
async def kept(root: Path, *urls: str, **settings: object) -> AsyncIterator[Rig]:
    """A pool that is looked after."""
    async with rig(root, *urls, **settings) as r:
        chosen = Settings.model_validate({"data_dir": root, **QUICK, **settings})
        r.tasks.start("housekeeping", Housekeeping(r.pool, chosen, r.tasks, r.dispatcher.ring).watch(), vital=True)
        yield r


async def loaded(url: str) -> object:
    """The models that an engine has loaded."""
    return (await engine_get(url, "/engine"))["loaded_models"]


async def running_on(r: Rig, prompt_id: str) -> Member:
    """The backend that a job has begun on."""
    await r.heard.until(prompt_id, "execution_start")
    job, _ = await r.entry(prompt_id)
    member = r.pool.member(job.backend_id)
    assert member is not None
    return member


async def test_after_its_deadline_a_drained_backend_is_empty(tmp_path: Path, start: Start) -> None:
    first, second = start(name="a"), start(name="b")
    async with kept(tmp_path, first.url, second.url) as r:
        for engine in (first, second):
            await arm(engine.url, **HANG)
        prompt_id = await r.submit(sampled())
        member = await running_on(r, prompt_id)
        other = next(one for one in r.pool.members.values() if one is not member)
        await disarm(other.row.url)
        await r.registry.change(member.key, Change(mode=BackendMode.DRAINING, drain_by_ms=now_ms() + 300))
        r.pool.wake()
        job, _ = await r.final(prompt_id)
        assert (job.state, job.backend_id, job.attempt) == (JobState.SUCCEEDED, other.key, 1)
        assert r.heard.kinds(prompt_id).count("execution_success") == 1
        told = [(kind, data) for kind, data in r.heard.of(prompt_id) if kind in ("execution_start", "progress_state")]
        again = max(index for index, (kind, _) in enumerate(told) if kind == "execution_start")
        before = told[again - 1]
        assert before == ("progress_state", {"prompt_id": prompt_id, "nodes": {}}), "the canvas showed it running"
        await r.eventually(lambda: member.is_empty and not member.evict.is_set())
        assert member.failed == 0, "it is not the backend's fault"
        await disarm(member.row.url)
        await r.registry.set_mode(member.key, BackendMode.ACTIVE)
        r.pool.wake()
        await r.eventually(lambda: member.idle)


async def test_an_idle_backend_unloads_its_models_once(tmp_path: Path, start: Start) -> None:
    engine = start()
    async with kept(tmp_path, engine.url, idle_free_s=0.3, job_poll_s=0.1) as r:
        await arm(engine.url, **HANG)
        prompt_id = await r.submit(sampled())
        member = await running_on(r, prompt_id)
        await asyncio.sleep(0.6)  # longer than an idle one is left alone
        assert await loaded(engine.url) and member.held is None, "it has a job"
        await disarm(engine.url)
        await r.final(prompt_id)
        await _until_freed(engine.url)
        assert not member.warmth.models
        await _as_a_stranger(engine.url)
        await asyncio.sleep(0.6)  # a second time would come by now
        assert await loaded(engine.url), "once per idleness"
        await r.run(saved())
        await _until_freed(engine.url)
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED


async def _until_freed(url: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while await loaded(url):
            await asyncio.sleep(0.02)


async def _as_a_stranger(url: str) -> None:
    """Have it load models behind the pool's back."""
    async with aiohttp.ClientSession(trust_env=False) as http:
        async with http.post(f"{url}/prompt", json={"prompt": sampled()}) as answer:
            prompt_id = (await answer.json())["prompt_id"]
        async with asyncio.timeout(WAIT_S):
            while not await engine_get(url, f"/history/{prompt_id}"):
                await asyncio.sleep(0.05)
