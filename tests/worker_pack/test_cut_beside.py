"""Killed while files of one job travel and another renders: the server, the worker; and a disk that is full at home."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from backend_pool.job_state import FINAL, JobState
from backend_pool.jobs.queries import JobQueries
from backend_pool.jobs.store import JobStore
from backend_pool.model import Job
from backend_pool.worker_pack.config import Config, save
from backend_pool.workers.registrations import Workers
from backend_pool.workers.tokens import create_now
from proxy.base.database import Database
from tests.backend_pool.graphs import sampled, saved
from tests.backend_pool.rig import WAIT_S, open_database, submission, user_dirs
from tests.backend_pool.test_disk import namespaces
from tests.forked import Forked
from tests.worker_pack.beside import PATIENT, scene
from tests.worker_pack.cluster import BEAT_S, KEY, Begin, hub
from tests.worker_pack.link import linked
from tests.worker_pack.pool_process import serve


async def until(db: Database, user: int, prompt_id: str, *states: JobState) -> Job:
    """The job once it is in one of these states."""
    async with asyncio.timeout(WAIT_S):
        while True:
            found = await JobQueries(db).one(user, prompt_id)
            if found is not None and found[0].state in states:
                return found[0]
            await asyncio.sleep(0.02)


async def secret(db: Database, root: Path) -> dict[str, str]:
    """What the one worker answers to, once it has registered."""
    workers = Workers(db, KEY, root / "users", BEAT_S)
    async with asyncio.timeout(WAIT_S):
        while not workers.headers(1):
            await workers.reload()
            await asyncio.sleep(0.02)
    return workers.headers(1)


async def test_the_server_is_killed(tmp_path: Path, begin: Begin) -> None:
    """Another one fetches what the worker has kept, while the second job goes on; nothing is rendered again. The first
    user's next job waits for that, as before."""
    db = open_database(tmp_path)
    for user in (1, 2):
        user_dirs(tmp_path, user)
    async with linked() as to_server, linked() as to_worker:
        settings = Config(to_server.url, create_now(db, "one"), "worker-one", "one", to_worker.url, heartbeat_s=BEAT_S)
        save(tmp_path / "one.json", settings)
        server = Forked(serve, str(tmp_path), log=tmp_path / "server.log")
        try:
            to_server.to((await asyncio.to_thread(server.stdout.readline)).strip())
            engine = begin(tmp_path / "one.json", "--step-ms", "20")
            to_worker.to(engine.url)
            async with aiohttp.ClientSession(headers=await secret(db, tmp_path), trust_env=False) as http:
                hang = {"fault": "hang_job", "node": "KSampler", "step": 2}
                async with http.post(f"{engine.url}/engine/faults", json=hang) as answer:
                    assert answer.status == 200
                store = JobStore(db, 10, 10)
                to_worker.hold("/file?")
                first, second, third = submission(saved(), 1), submission(sampled(), 2), submission(saved(), 1)
                await store.submit(first)
                await to_worker.caught()
                await store.submit(second)
                for user, order in ((1, first), (2, second)):
                    await until(db, user, order.prompt_id, JobState.RUNNING)
                server.kill()
                await store.submit(third)
                assert await asyncio.to_thread(server.wait, WAIT_S) == -signal.SIGKILL
                to_worker.let_go()
                to_worker.hold("/file?")
                async with hub(tmp_path, **PATIENT, running_limit=2) as h:
                    to_server.to(h.url)
                    await to_worker.caught()
                    assert (await until(db, 2, second.prompt_id, *JobState)).state is JobState.RUNNING
                    async with http.delete(f"{engine.url}/engine/faults") as answer:
                        assert answer.status == 200
                    job = await until(db, 2, second.prompt_id, *FINAL)
                    assert job.state is JobState.SUCCEEDED and job.attempt == 1
                    assert (await h.rig.run(saved(), 2))[0].state is JobState.SUCCEEDED
                    assert (await until(db, 1, third.prompt_id, *JobState)).state is JobState.QUEUED
                    to_worker.let_go()
                    for order in (first, third):
                        job = await until(db, 1, order.prompt_id, *FINAL)
                        assert job.state is JobState.SUCCEEDED and job.attempt == 1
                    assert h.rig.files(1) == ["output/ComfyUI_00001_.png", "output/ComfyUI_00002_.png"]
                    async with http.get(f"{engine.url}/engine") as answer:
                        assert (await answer.json())["counters"]["jobs_run"] == 4
                    scratch = engine.base_dir / "worker-pack" / "scratch"
                    await h.rig.eventually(lambda: not any(scratch.glob("*/*")))
        finally:
            server.kill()
            await asyncio.to_thread(db.close)


async def test_the_worker_is_killed(tmp_path: Path, begin: Begin) -> None:
    """Its files are gone with it: both jobs run again, and what the dead one left there is swept. The first had ended
    there: it is not held against it."""
    async with scene(tmp_path, begin) as s:
        first = await s.travelling(1)
        second = await s.rig.submit(sampled(200), 2)
        await s.rig.heard.until(second, "progress")
        assert len(s.homes()) == 2
        s.engine.kill()
        s.link.let_go()
        s.link.to(begin(tmp_path / "one.json").url)
        for user, prompt_id, told in ((1, first, (1, [])), (2, second, (2, [1]))):
            job, _ = await s.rig.final(prompt_id, user)
            assert job.state is JobState.SUCCEEDED and (job.attempt, job.avoid) == told
            assert s.rig.files(user) == ["output/ComfyUI_00001_.png"]


@pytest.mark.skipif(not namespaces(), reason="needs `unshare -Urm` to mount a small disk")
def test_the_disk_at_home_is_full(tmp_path: Path) -> None:
    """The job says so; the one beside it and the next one are not touched by it, and nothing is left at the worker."""
    command = ["unshare", "-Urm", sys.executable, "-m", "tests.worker_pack.full_disk", str(tmp_path)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    full, beside, after = json.loads(ran.stdout)
    assert full[:2] == ["failed", 1] and full[2][1]["exception_type"] == "DiskFull"
    assert beside[0] == after[0] == "succeeded"
