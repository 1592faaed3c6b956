"""Forecasts out of a running pool: learned from what ran, about what waits, true to who is held up by what."""

import time
from pathlib import Path
from typing import Any

import pytest

from backend_pool.forecasts import outlooks
from backend_pool.forecasts.outlook import Outlook
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import sampled
from tests.backend_pool.rig import Rig, arm, disarm, rig

STEPS = 20


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not wait two seconds for each forecast."""
    monkeypatch.setattr(outlooks, "EVERY_S", 0.1)


async def look(made: Rig, prompt_id: str, user_id: int) -> Outlook | None:
    """What a job may expect now."""
    job, _ = await made.entry(prompt_id, user_id)
    return made.dispatcher.outlooks.of(job.key, user_id)


def samples(kind: str, data: Any) -> bool:
    """Whether the sampler has begun."""
    return kind == "executing" and data["node"] == "3"


async def test_a_pool_that_has_run_something_says_when_the_next_starts(tmp_path: Path, start: Start) -> None:
    engine = start("--step-ms", "5", "--model-load-ms", "0", "--faults")
    async with rig(tmp_path, engine.url) as made:
        told = made.dispatcher.outlooks
        await arm(engine.url, fault="hang_job", node="KSampler", heeds_interrupt=True)
        held = await made.submit(sampled(STEPS))
        await made.heard.until(held, samples)
        second, other = await made.submit(sampled(STEPS)), await made.submit(sampled(STEPS), 2)
        stuck = await made.submit(sampled(STEPS), 3, labels=["nowhere"])
        await made.eventually(lambda: len(told.order) == 2 and len(told.of_user(3)) == 1)
        assert await look(made, second, 1) == Outlook(2, reason="your other job runs first (1 at a time)")
        assert await look(made, other, 2) == Outlook(1, reason="the GPU is busy")
        assert await look(made, stuck, 3) == Outlook(reason="waiting for a backend with the label nowhere")
        assert await look(made, held, 1) is None  # nothing was ever measured
        await made.cancel(held)
        for prompt_id in (held, second, other):
            await made.heard.ended(prompt_id)
        await made.eventually(lambda: not told.order)

        await arm(engine.url, fault="hang_job", node="KSampler", heeds_interrupt=True)
        held, asked_ms = await made.submit(sampled(STEPS)), time.time() * 1000
        await made.heard.until(held, samples)
        waits = await made.submit(sampled(STEPS), 2)
        await made.eventually(lambda: len(told.of_user(2)) == 1)
        now, running = await look(made, waits, 2), await look(made, held, 1)
        assert now is not None and running is not None and now.start_ms and now.end_ms and running.end_ms
        assert asked_ms < running.end_ms == now.start_ms < now.end_ms
        assert now.end_ms - now.start_ms >= STEPS * 5
        waiting = made.dispatcher.turns.line.get((await made.entry(waits, 2))[0].key)
        assert waiting is not None and 1000 * waiting.work_s[1] == pytest.approx(now.end_ms - now.start_ms, abs=2)
        for prompt_id, user_id in ((held, 1), (waits, 2), (stuck, 3)):
            await made.cancel(prompt_id, user_id)
        await made.heard.ended(held)
        await disarm(engine.url)
        await made.eventually(lambda: not told.order and not told.of_user(3))
