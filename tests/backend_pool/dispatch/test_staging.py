"""Files travel beside the work: outputs of an ended job while the next one runs, inputs of the next one beforehand."""

import asyncio
from pathlib import Path

from backend_pool.job_state import JobState
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import loaded, sampled, saved
from tests.backend_pool.rig import WAIT_S, arm, disarm, engine_get, rig
from tests.backend_pool.test_way import picture
from tests.engines import Engine


async def test_the_next_job_begins_while_files_come_home(tmp_path: Path, start: Start) -> None:
    """The backend has ended the first one; its user waits for the file, nobody else does."""
    engine = start("--step-ms", "20")
    async with rig(tmp_path, engine.url) as r:
        member = r.pool.members[1]
        await arm(engine.url, fault="slow_view", bytes_per_s=150)
        first = await r.submit(saved(), 1)
        await r.eventually(lambda: bool(member.collecting))
        second = await r.submit(saved(), 2)
        await r.heard.until(second, "execution_start")
        job, _ = await r.entry(first, 1)
        assert job.state in (JobState.ASSIGNED, JobState.RUNNING, JobState.COLLECTING)
        assert "executing" not in [kind for kind, data in r.heard.of(first) if data == {"node": None}]
        assert (await r.final(second, 2))[0].state is JobState.SUCCEEDED
        await disarm(engine.url)
        assert (await r.final(first, 1))[0].state is JobState.SUCCEEDED
        assert len(r.files(1)) == 1 == len(r.files(2))
        assert not member.collecting and member.idle


async def test_a_backend_has_so_many_jobs_files_on_their_way(tmp_path: Path, start: Start) -> None:
    """Three; the next job waits for one of them, and all arrive."""
    engine = start("--step-ms", "20")
    async with rig(tmp_path, engine.url) as r:
        member = r.pool.members[1]
        await arm(engine.url, fault="slow_view", bytes_per_s=200, count=3)
        jobs = [(await r.submit(saved(), user), user) for user in (1, 2, 3, 4)]
        await r.eventually(lambda: len(member.collecting) == 3)
        assert not member.idle and member.job is None
        done = [(await r.final(prompt_id, user))[0] for prompt_id, user in jobs]
        assert all(job.state is JobState.SUCCEEDED for job in done)


async def test_inputs_go_to_the_backend_before_the_job_does(tmp_path: Path, start: Start) -> None:
    """While another job renders there; when its turn comes nothing is sent, over a slow line or not."""
    engine = start("--step-ms", "20")
    async with rig(tmp_path, engine.url, sweep_backends=False) as r:
        await arm(engine.url, fault="slow_upload", bytes_per_s=200, count=100)
        picture(r.dirs(2).input / "photo.png")
        long = await r.submit(sampled(10_000), 1)
        await r.heard.until(long, "execution_start")
        second = await r.submit(loaded("photo.png"), 2)
        inputs = engine.base_dir / "input"
        await r.eventually(lambda: any(path.is_file() for path in inputs.rglob("*.png") if path.stat().st_size))
        member = r.pool.members[1]
        assert member.job == (await r.entry(long))[0].key
        assert await uploads(engine) == 1
        before = {path: path.stat().st_mtime_ns for path in inputs.rglob("*") if path.is_file()}
        await r.cancel(long, 1)
        assert (await r.final(second, 2))[0].state is JobState.SUCCEEDED
        assert {path: path.stat().st_mtime_ns for path in inputs.rglob("*") if path.is_file()} == before
        assert await uploads(engine) == 1


async def test_what_is_on_its_way_is_not_sent_twice(tmp_path: Path, start: Start) -> None:
    """The job's turn comes while its file is being sent: it waits for that."""
    engine = start("--step-ms", "20")
    async with rig(tmp_path, engine.url, sweep_backends=False) as r:
        await arm(engine.url, fault="slow_upload", bytes_per_s=60, count=100)
        picture(r.dirs(2).input / "photo.png")
        long = await r.submit(sampled(10_000), 1)
        await r.heard.until(long, "execution_start")
        second = await r.submit(loaded("photo.png"), 2)
        async with asyncio.timeout(WAIT_S):
            while not await uploads(engine):
                await asyncio.sleep(0.02)
        await r.cancel(long, 1)
        assert (await r.final(second, 2))[0].state is JobState.SUCCEEDED
        assert await uploads(engine) == 1


async def uploads(engine: Engine) -> int:
    """How many slow ones have begun. Emptying results that have come home is one too, where that is done."""
    return int((await engine_get(engine.url, "/engine"))["counters"]["faults_struck"])


async def test_a_wrong_guess_does_no_harm(tmp_path: Path, start: Start) -> None:
    """Its file is gone again; its runner says so, and other jobs go on."""
    engine = start("--step-ms", "20")
    async with rig(tmp_path, engine.url) as r:
        picture(r.dirs(2).input / "photo.png")
        long = await r.submit(sampled(10_000), 1)
        await r.heard.until(long, "execution_start")
        (r.dirs(2).input / "photo.png").unlink()
        second = await r.submit(loaded("photo.png"), 2)
        third = await r.submit(saved(), 3)
        await r.cancel(long, 1)
        assert (await r.final(second, 2))[0].state is JobState.FAILED
        assert (await r.final(third, 3))[0].state is JobState.SUCCEEDED
    assert (await engine_get(engine.url, "/queue")) == {"queue_running": [], "queue_pending": []}
