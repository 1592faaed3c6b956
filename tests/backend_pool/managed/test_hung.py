"""Engines that hang with a job, each in its way: what they go on with must not keep them from being started anew."""

from pathlib import Path

from backend_pool.backends.phase import Phase
from backend_pool.job_state import JobState
from backend_pool.model import Job, JsonDict
from tests.backend_pool.graphs import sampled
from tests.backend_pool.managed.test_engines import Kept, kept
from tests.backend_pool.rig import arm

HASTY: JsonDict = {"job_silence_s": 1.0, "cancel_grace_s": 0.5, "unheeded_limit_s": 1.0}


async def hung(k: Kept, fault: str) -> tuple[int, str]:
    """The process that is about to stand still, and its job."""
    await k.rig.eventually(lambda: k.rig.pool.members[1].idle)
    before = k.pid()
    await arm(k.rig.pool.members[1].row.url, fault=fault, node="KSampler", heeds_interrupt=False)
    return before, await k.rig.submit(sampled(steps=3))


async def renewed(k: Kept, before: int) -> None:
    """Wait until another process serves in its place."""
    await k.rig.eventually(lambda: not Path(f"/proc/{before}").exists())
    await k.rig.eventually(lambda: k.rig.pool.members[1].idle)
    assert k.phases() == [Phase.RUNNING] and not k.rig.pool.members[1].restart_wanted.is_set()


async def final(k: Kept, prompt_id: str) -> Job:
    return (await k.rig.final(prompt_id))[0]


async def test_one_that_hangs_with_a_job_is_started_anew(tmp_path: Path) -> None:
    """One that answers nobody, one that stands still with a job, and one that does not heed a cancel."""
    async with kept(tmp_path, 1, **HASTY) as k:
        for fault in ("hang_server", "hang_job"):
            before, prompt_id = await hung(k, fault)
            await renewed(k, before)
            assert (await final(k, prompt_id)).state is JobState.SUCCEEDED, fault
        before, prompt_id = await hung(k, "hang_job")
        await k.rig.heard.until(prompt_id, "execution_start")
        await k.rig.cancel(prompt_id)
        assert (await final(k, prompt_id)).state is JobState.CANCELLED
        await renewed(k, before)
