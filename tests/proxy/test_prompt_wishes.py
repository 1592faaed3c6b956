"""What a submission asks for and what its group allows, from POST /prompt to the ledger, on a server with an engine."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from sqlmodel import select

from backend_pool.books.tables import LedgerEntry
from backend_pool.job_state import JobState
from backend_pool.lane import Lane
from backend_pool.model import BackendMode, Job
from tests.backend_pool.conftest import Start, start
from tests.backend_pool.graphs import saved
from tests.proxy.control_server import API, Server, serving

__all__ = ["start"]

WAIT_S = 60


async def row(server: Server, prompt_id: str) -> Job:
    return await server.cluster.db.read(lambda s: s.exec(select(Job).where(Job.prompt_id == prompt_id)).one())


async def eventually(server: Server, prompt_id: str, holds: Callable[[Job], bool]) -> Job:
    """The job's row once it fits."""
    async with asyncio.timeout(WAIT_S):
        while not holds(job := await row(server, prompt_id)):
            await asyncio.sleep(0.02)
    return job


async def submit(browser: httpx.AsyncClient, prompt_id: str, status: int = 200, **extra: Any) -> httpx.Response:
    body = {"prompt": saved(), "prompt_id": prompt_id, "extra_data": {"mine": 1, "cluster": extra}}
    answer = await browser.post("/prompt", json=body)
    assert answer.status_code == status, answer.text
    return answer


async def test_from_the_prompt_to_the_ledger(tmp_path: Path, start: Start) -> None:
    """One server for all of it: starting one costs more than asking."""
    engine = start()
    more: dict[str, Any] = {"backends": [engine.url], "probe_interval_s": 0.2, "priority_limit": 2}
    async with serving(tmp_path, alive=True, **more) as server:
        await server.user("Ann")
        async with server.signed_in("Ann") as hers:
            async with asyncio.timeout(WAIT_S):
                while (await hers.get("/object_info/SaveImage")).json() == {}:
                    await asyncio.sleep(0.05)
            await _wishes(server, hers)
            await _limits(server, hers)
            await _reserved(server, hers)


async def _wishes(server: Server, hers: httpx.AsyncClient) -> None:
    await hers.patch(f"{API}/share", json={"lane": "batch"})
    answer = await submit(hers, "one", priority=9)
    assert answer.headers["x-cluster-note"].startswith("Priority 9 was lowered to 2")
    assert set(answer.json()) == {"prompt_id", "number", "node_errors"}
    job = await eventually(server, "one", lambda job: job.state is JobState.SUCCEEDED)
    assert (job.lane, job.priority) == (Lane.BATCH, 2)
    extra = (await hers.get("/history/one")).json()["one"]["prompt"][3]
    assert "cluster" not in extra and extra["mine"] == 1
    entries = await server.cluster.db.read(lambda s: s.exec(select(LedgerEntry)).all())
    member = server.cluster.work.pool.members[1]
    assert [(entry.prompt_id, entry.lane, entry.backend) for entry in entries] == [("one", Lane.BATCH, member.row.name)]
    assert 0 < entries[0].gpu_ms <= entries[0].ended_ms - entries[0].created_ms
    refused = await submit(hers, "two", 400, lane="slow")
    assert refused.json()["error"]["message"] == "lane must be interactive or batch."


async def _limits(server: Server, hers: httpx.AsyncClient) -> None:
    """The queue limit at once; a quota holds what waits already, and lets it go on."""
    books, users = server.cluster.work.groups, server.cluster.people.access.users
    ann, root = await users.by_name("ann"), await server.user("root", admin=True)
    assert ann is not None
    async with server.signed_in(root.name) as admin:
        wanted = {"name": "class", "queue_limit": 1, "quota_period": "month"}
        made = await admin.post(f"{API}/admin/groups", json=wanted)
        group = f"{API}/admin/groups/{made.json()['id']}"
        await admin.post(f"{group}/members", json={"user": "ann"})
        await server.cluster.work.registry.set_mode(1, BackendMode.DRAINING)
        await server.cluster.work.pool.refresh()
        await submit(hers, "waits")
        assert "Your queue is full" in (await submit(hers, "too many", 429)).json()["error"]["message"]

        def use(s: Any) -> None:
            entry = s.exec(select(LedgerEntry)).one()
            entry.group_name = "class"

        await server.cluster.db.write(use)
        assert (await admin.patch(group, json={"quota_s": 0.001})).json()["quota"]["exhausted"]
        assert "class has used its GPU time" in (books.blocked(ann.key) or "")
        await server.cluster.work.registry.set_mode(1, BackendMode.ACTIVE)
        await server.cluster.work.pool.refresh()
        async with asyncio.timeout(WAIT_S):
            while "class has used its GPU time" not in (await hers.get(f"{API}/jobs")).text:
                await asyncio.sleep(0.05)
        assert (await row(server, "waits")).state is JobState.QUEUED
        await admin.patch(group, json={"quota_s": None})
        await eventually(server, "waits", lambda job: job.state is JobState.SUCCEEDED)


async def _reserved(server: Server, hers: httpx.AsyncClient) -> None:
    """A backend that is another group's meanwhile takes nobody else's job, and says so."""
    now = datetime.now(UTC)
    times = {"begin": now.isoformat(), "end": (now + timedelta(hours=1)).isoformat()}
    async with server.signed_in("root") as admin:
        await admin.post(f"{API}/admin/groups", json={"name": "others"})
        made = await admin.post(f"{API}/admin/reservations", json={"group": "others", "backends": ["1"], **times})
        assert made.status_code == 201, made.text
        await submit(hers, "held")
        async with asyncio.timeout(WAIT_S):
            while "held back by a reservation until" not in (await hers.get(f"{API}/jobs")).text:
                await asyncio.sleep(0.05)
        assert (await row(server, "held")).state is JobState.QUEUED
        await admin.delete(f"{API}/admin/reservations/{made.json()['id']}")
        await eventually(server, "held", lambda job: job.state is JobState.SUCCEEDED)
