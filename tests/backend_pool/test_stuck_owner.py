"""A process that stands still with a job while another takes it over, and then goes on as if nothing had been."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from backend_pool.job_state import JobState
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import sampled
from tests.backend_pool.pool_process import STOP
from tests.backend_pool.rig import WAIT_S, arm
from tests.backend_pool.test_recovery import carried_on, jobs_run, outcome, pictures, process, queue, status


async def stopped(pid: int) -> None:
    """Return once the process stands still."""
    async with asyncio.timeout(WAIT_S):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("label", ["noted", "before finish"])
async def test_an_owner_that_stood_still_changes_nothing_any_more(tmp_path: Path, start: Start, label: str) -> None:
    """Stopped between files and end; another one ends the job, then it goes on: one end, the file once, one run."""
    engine = start()
    prompt_id = await queue(tmp_path, engine, sampled(steps=80))
    await arm(engine.url, fault="drop_ws", node="SaveImage")
    with process(tmp_path, STOP + label) as first:
        await stopped(first.pid)
        await carried_on(tmp_path)
        state, outputs, trail = await outcome(tmp_path, prompt_id)
        assert state is JobState.SUCCEEDED
        os.kill(first.pid, signal.SIGCONT)
        assert await status(first) == 0, (tmp_path / "process.log").read_text()
    assert await outcome(tmp_path, prompt_id) == (state, outputs, trail)
    assert trail.count("succeeded") == 1 and trail.count("assigned") == 1
    assert pictures(tmp_path) == [f"output/{image['filename']}" for image in outputs["9"]["images"]]
    assert await jobs_run(engine) == 1
