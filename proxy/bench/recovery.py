"""What a crash costs, and what a long queue costs those who are not in it: a killed server, and one user's long queue.

Both run on a server of their own with engines that sleep where a GPU would work.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
from sqlmodel import select

from backend_pool.job_state import FINAL, ON_BACKEND, JobState
from backend_pool.model import Job
from proxy.base.clock import monotonic_s
from proxy.base.database import Database
from proxy.base.errors import Unavailable
from proxy.bench.load import SETTINGS, submit, until_up
from proxy.bench.plan import MODELS, Load, sampled
from proxy.bench.server import BenchServer, account, bench_server

LOOK_S = 0.01
WAIT_S = 120.0
AT_ONCE = 32
"""Requests in flight while the long queue is filled."""


@dataclass(frozen=True)
class Recovery:
    """Seconds from the start of the next server, and what became of the jobs."""

    serves_s: float
    first_end_s: float
    """Until a job that was running at the crash has ended."""
    first_new_s: float
    """Until a job placed after the crash has ended."""
    lost: int
    again: int
    """Jobs that were run a second time."""

    def __str__(self) -> str:
        return (
            f"After kill -9 with jobs running: serves after {self.serves_s:.1f} s, the first of those jobs ended after "
            f"{self.first_end_s:.1f} s, the first new one after {self.first_new_s:.1f} s; "
            f"{self.lost} lost, {self.again} run again."
        )


@dataclass(frozen=True)
class Behind:
    """A user with one job who comes behind another's long queue."""

    queued: int
    backends: int
    job_s: float
    """How long one of the long queue's jobs takes."""
    waits_s: list[float]
    """What each of the late user's jobs waited, one after the other."""
    submit_ms: float
    """What taking in one of the queued jobs took, on average."""

    def __str__(self) -> str:
        waits = ", ".join(f"{wait:.2f}" for wait in self.waits_s)
        return (
            f"{self.queued} jobs of one user waiting for {self.backends} engines, {self.job_s:g} s each, taken in at "
            f"{self.submit_ms:.1f} ms each; another user's jobs then waited {waits} s."
        )


async def recovery(engines: int = 4, jobs: int = 24) -> Recovery:
    """kill -9 in the middle of a load, and start again. Raises Unavailable."""
    load = Load(engines=engines, step_ms=250)
    async with bench_server(engines, load.engine_args(), SETTINGS) as server:
        db = await asyncio.to_thread(server.database)
        try:
            people = await asyncio.to_thread(lambda: [account(db, f"user-{n}", admin=n == 0) for n in range(jobs // 2)])
            await until_up(server, people[0][1], engines)
            async with aiohttp.ClientSession(trust_env=False) as http:
                for number in range(jobs):
                    token = people[number % len(people)][1]
                    await submit(http, server.url, token, sampled(MODELS[0], 8, number))
            await _until(db, lambda rows: sum(row.state is JobState.RUNNING for row in rows) >= engines)
            before = {row.key for row in await _rows(db) if row.state in ON_BACKEND}
            ended = {row.key for row in await _rows(db) if row.state in FINAL}
            await server.kill()
            return await _again(server, db, before, ended, jobs)
        finally:
            await asyncio.to_thread(db.close)


async def _again(server: BenchServer, db: Database, before: set[int], ended: set[int], jobs: int) -> Recovery:
    began = monotonic_s()
    times: dict[str, float] = {}
    async with asyncio.TaskGroup() as group:
        start = group.create_task(server.start())
        start.add_done_callback(lambda _task: times.setdefault("serves", monotonic_s() - began))
        await _until(db, lambda rows: any(row.key in before and row.state in FINAL for row in rows))
        times["end"] = monotonic_s() - began
        known = before | ended
        await _until(db, lambda rows: any(row.key not in known and row.state in FINAL for row in rows))
        times["new"] = monotonic_s() - began
    await _until(db, lambda rows: all(row.state in FINAL for row in rows))
    rows = await _rows(db)
    lost = jobs - sum(row.state is JobState.SUCCEEDED for row in rows)
    again = sum(row.attempt > 1 for row in rows)
    return Recovery(times["serves"], times["end"], times["new"], lost, again)


async def behind(queued: int, engines: int = 8, late_jobs: int = 3, step_ms: float = 500.0) -> Behind:
    """One user queues very many jobs, then another comes with a few, one after the other. Raises Unavailable."""
    load = Load(engines=engines, step_ms=step_ms, load_ms=0)
    settings = {**SETTINGS, "COMFY_CLUSTER_RUNNING_LIMIT": str(engines)}  # the long queue takes all backends
    async with bench_server(engines, load.engine_args(), settings) as server:
        db = await asyncio.to_thread(server.database)
        try:
            (_, greedy), (_, late) = await asyncio.to_thread(
                lambda: (account(db, "greedy", admin=True), account(db, "late"))
            )
            await until_up(server, greedy, engines)
            async with aiohttp.ClientSession(trust_env=False) as http:
                submit_ms = await _fill(http, server.url, greedy, queued)
                waits = []
                for number in range(late_jobs):
                    prompt_id = await submit(http, server.url, late, sampled(MODELS[0], 4, 1_000_000 + number))
                    waits.append(await _waited(db, prompt_id))
        finally:
            await asyncio.to_thread(db.close)
    return Behind(queued, engines, 4 * load.step_ms / 1000, waits, submit_ms)


async def _fill(http: aiohttp.ClientSession, url: str, token: str, queued: int) -> float:
    began = monotonic_s()
    numbers = iter(range(queued))

    async def some() -> None:
        for number in numbers:
            await submit(http, url, token, sampled(MODELS[0], 4, number))

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())
    return (monotonic_s() - began) * 1000 / queued


async def _waited(db: Database, prompt_id: str) -> float:
    """How long a job waited, in seconds, once it has ended."""
    query = select(Job).where(Job.prompt_id == prompt_id)
    deadline = monotonic_s() + WAIT_S
    while monotonic_s() < deadline:
        row = await db.read(lambda s: s.exec(query).one())
        if row.assigned_ms is not None and row.state in FINAL:
            return (row.assigned_ms - row.created_ms) / 1000
        await asyncio.sleep(LOOK_S * 10)
    raise Unavailable(f"The late user's job did not end within {WAIT_S:g} s.")


async def _until(db: Database, holds: Callable[[list[Job]], bool]) -> None:
    deadline = monotonic_s() + WAIT_S
    while not holds(await _rows(db)):
        if monotonic_s() > deadline:
            raise Unavailable(f"The jobs of the bench did not come to where they should within {WAIT_S:g} s.")
        await asyncio.sleep(LOOK_S)


async def _rows(db: Database) -> list[Job]:
    return await db.read(lambda s: list(s.exec(select(Job)).all()))
