"""What nodes say of a prompt at a worker: in nobody's directories, and only while nothing runs there."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from backend_pool.backends.consultant import Consultant
from backend_pool.engine.engine import build
from backend_pool.engine.options import Options
from backend_pool.engine.pack_host import EngineHost
from backend_pool.job_state import JobState
from backend_pool.worker_pack.config import Config
from backend_pool.worker_pack.host import Answer
from backend_pool.worker_pack.pack import Pack
from backend_pool.worker_pack.wire import PREFIX
from tests.backend_pool.graphs import sampled, saved
from tests.worker_pack.cluster import Begin, hub


async def test_a_busy_worker_judges_nothing(tmp_path: Path, begin: Begin) -> None:
    """Its directories are those of whoever has the job; an idle one says what it thinks and queues nothing."""
    async with hub(tmp_path) as h:
        engine = begin(h.config(tmp_path / "one.json"), "--step-ms", "50")
        member = await h.member()
        consultant = Consultant(h.rig.pool)
        prompt = saved(width=10**9)
        opinions = await consultant.opinions(prompt, None, {"1"})
        assert opinions is not None and opinions["1"][0]["type"] == "value_bigger_than_max"
        running = await h.rig.submit(sampled(60), 1)
        await h.rig.heard.until(running, "progress")
        assert await consultant.opinions(prompt, None, {"1"}) is None
        assert (await h.rig.final(running))[0].state is JobState.SUCCEEDED
        headers = h.workers.headers(member.key)
        async with aiohttp.ClientSession(headers=headers) as http:
            async with http.get(f"{engine.url}/history") as response:
                assert len(await response.json()) <= 1
            async with http.post(f"{engine.url}{PREFIX}/validate", json={}) as response:
                assert response.status == 400
            async with http.post(f"{engine.url}{PREFIX}/validate", data=b"{" + b" " * 10) as response:
                assert response.status == 400


class Slow(EngineHost):
    """A host whose verdicts wait until they are let go; notes in which directories they were asked for."""

    def __init__(self, root: Path) -> None:
        self.engine = build(Options(root))
        super().__init__(self.engine)
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self.seen: list[Path] = []

    async def validate(self, order: dict[str, Any]) -> Answer:
        """As it is, later."""
        self.seen = [self.engine.directories.root(kind) for kind in ("input", "output", "temp")]
        self.asked.set()
        await self.go.wait()
        return await super().validate(order)


async def test_in_empty_directories_and_a_job_waits_for_it(tmp_path: Path) -> None:
    """Not in the worker's own ones either: those are its operator's."""
    host = Slow(tmp_path)
    pack = Pack(Config("http://127.0.0.1:9", "cwt_x", "worker-one", "one"), host, tmp_path / "pack")
    own = [host.engine.directories.root(kind) for kind in ("input", "output", "temp")]
    async with asyncio.TaskGroup() as group:
        verdict = group.create_task(pack.judge({"prompt": saved()}))
        await host.asked.wait()
        assert pack.slot.busy and not set(host.seen) & set(own)
        assert [list(folder.iterdir()) for folder in host.seen] == [[], [], []]
        order = {"prompt": saved(), "prompt_id": "one", "client_id": "one"}
        job = group.create_task(pack.submit({"user": "a" * 8, "storage": {"inputs": [], "stubs": []}, "order": order}))
        await asyncio.sleep(0)
        assert not job.done()
        host.go.set()
    assert verdict.result().status == 200 and job.result().status == 200
    assert pack.slot.job is not None and pack.slot.job.id == "one"
    assert (await pack.judge({"prompt": saved()})).status == 409, "a job is there now"
    pack.slot.ended()
    assert [host.engine.directories.root(kind) for kind in ("input", "output", "temp")] == own


async def test_prompts_of_the_operators_keep_jobs_away(tmp_path: Path) -> None:
    """Also one that has passed the door and is not in the queue yet, or comes while a job is prepared."""
    pack = Pack(Config("http://127.0.0.1:9", "cwt_x", "worker-one", "one"), Slow(tmp_path), tmp_path / "pack")
    order = {"prompt": saved(), "prompt_id": "one", "client_id": "one"}
    body = {"user": "a" * 8, "storage": {"inputs": [], "stubs": []}, "order": order}
    pack.visitors = 1
    assert (await pack.submit(body)).status == 409
    assert (await pack.judge({"prompt": saved()})).status == 409
    pack.visitors = 0
    prepare = pack.workspace.scratch

    def late(*given: Any) -> Any:
        pack.visitors = 1
        return prepare(*given)

    pack.workspace.scratch = late  # type: ignore[method-assign, assignment]
    assert (await pack.submit(body)).status == 409
    assert not pack.slot.busy and not list((tmp_path / "pack" / "scratch").glob("*/*"))
