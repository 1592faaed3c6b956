"""A worker whose job hangs: its pack begins it anew, stuck job and all, and a trial job ends the quarantine."""

from pathlib import Path

from backend_pool.backends.health import Health
from backend_pool.job_state import JobState
from tests.backend_pool.graphs import sampled
from tests.worker_pack.cluster import Begin, hub


async def test_a_worker_whose_job_hangs_begins_anew(tmp_path: Path, begin: Begin) -> None:
    """The same process, without what it was stuck in; the job runs there again."""
    async with hub(tmp_path, job_silence_s=0.8, cancel_grace_s=0.8) as h:
        engine = begin(h.config(tmp_path / "one.json"))
        member = await h.member()
        before = h.workers.heard(member.key)
        order = {"fault": "hang_job", "node": "KSampler"}
        async with member.client.call("POST", "/engine/faults", json=order) as response:
            assert response.status == 200
        job, _ = await h.rig.run(sampled())
        assert job.state is JobState.SUCCEEDED and job.attempt == 2 and job.avoid == [member.key]
        assert engine.process.poll() is None
        after = h.workers.heard(member.key)
        assert before is not None and after is not None and after.beat.instance != before.beat.instance
        now = await h.member()  # at another port
        await h.rig.eventually(lambda: now.health is Health.UP and now.row.quarantine is None)
