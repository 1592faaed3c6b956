"""What the API says a job may expect: positions over all users, times, reasons, for jobs far back too."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backend_pool.books.share import Share
from backend_pool.forecasts.scene import Case, Scene, Seat
from backend_pool.model import Job
from backend_pool.placement.line import Line
from backend_pool.placement.values import Kind, Policy, Spot, Waiting
from tests.proxy.control_server import API, Server, serving

PROMPT = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox"}}}
TOOK_S = 10.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as running:
        await running.user("root", admin=True)
        yield running


async def foresee(
    server: Server, waiting: list[Job], running: Job, tails: dict[int, int] | None = None, elsewhere: str = ""
) -> float:
    """Make a forecast with one backend that is free in five seconds, where the job `elsewhere` cannot run; the time it
    was made for."""
    now_s = float(round(time.time()))
    line, cases = Line(Policy()), {}
    for job in waiting:
        line.know(job.user_id, Share())
        line.add(Waiting(job.key, job.user_id, job.number, Kind(frozenset({1 + (job.prompt_id == elsewhere)}))))
        cases[job.key] = Case(line.waiting(job.user_id)[-1], {1: TOOK_S})
    seat = Seat(Spot(1), "busy", now_s + 5, running.key, running.user_id, TOOK_S)
    await server.cluster.work.dispatcher.outlooks.renew(Scene(line, now_s, [seat], cases, tails=tails or {}))
    return now_s


def looks(jobs: list[dict[str, Any]], now_s: float) -> list[tuple[object, ...]]:
    """Prompt id, position, seconds to start and end, reason."""
    times = ("expected_start_ms", "expected_end_ms")
    return [
        (job["prompt_id"], job["position"], *(job[key] and job[key] / 1000 - now_s for key in times), job["reason"])
        for job in jobs
    ]


async def test_jobs_stand_as_they_are_expected_to_start(server: Server) -> None:
    ann = await server.user("Ann")
    running = await server.running(await server.job(ann, PROMPT, "runs"))
    jobs = [await server.job(ann, PROMPT, name) for name in ("a0", "a1", "a2")]
    await foresee(server, jobs, running, elsewhere="a0")
    async with server.signed_in("Ann") as client:
        told = (await client.get(f"{API}/jobs")).json()["jobs"]
        shown = [(job["prompt_id"], job["position"]) for job in told]
        assert shown == [("runs", None), ("a1", 1), ("a2", 2), ("a0", None)]


async def test_positions_go_round_the_users(server: Server) -> None:
    ann, bob = await server.user("Ann"), await server.user("Bob")
    running = await server.running(await server.job(bob, PROMPT, "runs"))
    jobs = [await server.job(user, PROMPT, name) for user, name in ((ann, "a0"), (ann, "a1"), (ann, "a2"), (bob, "b0"))]
    now_s = await foresee(server, jobs, running)
    late = await server.job(bob, PROMPT, "too late")
    async with server.signed_in("Ann") as client:
        told = (await client.get(f"{API}/jobs")).json()["jobs"]
        assert looks(told, now_s) == [
            ("a0", 1, 5, 15, "the GPU is busy"),
            ("a1", 3, 25, 35, "2 jobs ahead, the GPU is busy"),
            ("a2", 4, 35, 45, "3 jobs ahead, the GPU is busy"),
        ]
        one = await client.get(f"{API}/jobs/a1")
        assert one.json() == told[1] == (await client.get(f"{API}/jobs/{jobs[1].key}")).json()
        for hidden in ("b0", str(jobs[3].key), "nobody", "9" * 30):
            assert (await client.get(f"{API}/jobs/{hidden}")).status_code == 404
    async with server.signed_in("Bob") as client:
        told = (await client.get(f"{API}/jobs")).json()["jobs"]
        assert looks(told, now_s)[0] == ("runs", None, None, 5, None)
        assert looks(told, now_s)[2] == ("too late", None, None, None, None)
        await server.running(jobs[3])  # has started since the forecast
        told = (await client.get(f"{API}/jobs/b0")).json()
        assert looks([told], now_s) == [("b0", None, None, None, None)]
    async with server.signed_in("root") as root:
        queue = (await root.get(f"{API}/admin/jobs")).json()
        shown = ["runs", "b0", "a0", "a1", "a2", late.prompt_id]
        assert [job["prompt_id"] for job in queue["jobs"]] == shown and queue["active"] == 6
        assert [job["position"] for job in queue["jobs"]] == [None, None, 1, 3, 4, None]
        queue = (await root.get(f"{API}/admin/jobs?limit=3")).json()
        assert [job["prompt_id"] for job in queue["jobs"]] == shown[:3] and queue["active"] == 6


async def test_jobs_far_back_are_told_by_their_rank(server: Server) -> None:
    ann = await server.user("Ann")
    running = await server.running(await server.job(ann, PROMPT, "runs"))
    jobs = [await server.job(ann, PROMPT, f"a{number}") for number in range(8)]
    now_s = await foresee(server, jobs[:4], running, {ann.key: 4})
    async with server.signed_in("Ann") as client:
        told = (await client.get(f"{API}/jobs")).json()["jobs"][1:]
        assert [(job["position"], job["expected_start_ms"] / 1000 - now_s) for job in told] == [
            (place + 1, 5 + 10 * place) for place in range(8)
        ]
        last = (await client.get(f"{API}/jobs/a7")).json()
        assert last == told[7] and last["reason"] == "7 jobs ahead, all yours, the GPU is busy"
    theirs = "3 jobs ahead, all theirs, the GPU is busy"
    async with server.signed_in("root") as root:
        assert theirs in [job["reason"] for job in (await root.get(f"{API}/admin/jobs")).json()["jobs"]]
        assert (await root.get(f"{API}/admin/jobs/{jobs[3].key}")).json()["reason"] == theirs
        assert theirs in (await root.get("/cluster/admin/")).text
