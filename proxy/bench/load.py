"""Runs a load through a real server with real engines, once for each way of placing, and prints what came of it.

Engines sleep where a GPU would work, so that many fit on a small machine; everything else is what users get.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
from sqlmodel import col, func, select

from backend_pool.books import group_rows
from backend_pool.job_state import ACTIVE, JobState
from backend_pool.model import Job
from proxy.base.clock import monotonic_s
from proxy.base.database import Database
from proxy.base.errors import Unavailable
from proxy.bench.figures import Done, Figures, figures
from proxy.bench.plan import Load, Order, orders, weights
from proxy.bench.server import BenchServer, account, bench_server

LOOK_S = 0.25
READY_S = 60.0
STALL_S = 120.0
"""A load of which nothing ends for this long has failed."""
SETTINGS = {"COMFY_CLUSTER_QUEUE_LIMIT": "20000", "COMFY_CLUSTER_LOG_LEVEL": "warning"}


@dataclass(frozen=True)
class Way:
    """A way of placing: the setting, whether users have different weights, and how many times the load it gets.

    Parts by weight show in a longer load only: who has a seventh of another's part has few jobs in a short one.
    """

    name: str
    placement: str
    weighted: bool = False
    times: int = 1


WAYS = (
    Way("first in, first out", "fifo"),
    Way("users in turn", "turns"),
    Way("fair", "fair"),
    Way("fair, weights 1:2:4", "fair", weighted=True, times=3),
)


async def measure(load: Load, way: Way) -> Figures:
    """Run the load once. Raises Unavailable when it does not come to an end."""
    settings = {
        **SETTINGS,
        "COMFY_CLUSTER_PLACEMENT": way.placement,
        "COMFY_CLUSTER_AFFINITY_S": str(load.affinity_s),
    }
    load = replace(load, jobs=load.jobs * way.times, arrive_s=load.arrive_s * way.times)
    due = weights(load, different=way.weighted)
    async with bench_server(load.engines, load.engine_args(), settings) as server:
        db = await asyncio.to_thread(server.database)
        try:
            people = await asyncio.to_thread(_people, db, load, due if way.weighted else {})
            await until_up(server, people[0][1], load.engines)
            accepted = await _submit(server, [token for _, token in people], orders(load, due))
            await until_done(db)
            rows = await asyncio.to_thread(db.read_now, lambda s: list(s.exec(select(Job)).all()))
        finally:
            await asyncio.to_thread(db.close)
        engines = [await engine_counters(url) for url in server.engine_urls()]
    place = {user_id: number for number, (user_id, _) in enumerate(people)}
    done = [_done(row, place, load) for row in rows if row.state is JobState.SUCCEEDED]
    if not done:
        raise Unavailable("No job of the load has succeeded.", str(rows[0].trail[-1]) if rows else "")
    ran = sum(engine["jobs_run"] for engine in engines)
    return figures(
        done,
        load.engines,
        due,
        swaps=sum(engine["model_loads"] for engine in engines) - load.engines,
        lost=accepted - len(done),
        doubled=ran - accepted,
    )


def table(found: Mapping[str, Figures]) -> str:
    """The figures side by side."""
    lines = [f"{'':<28}" + "".join(f"{name:>27}" for name in found)]
    for label, show in ROWS:
        lines.append(f"{label:<28}" + "".join(f"{show(each):>27}" for each in found.values()))
    return "\n".join(lines)


def waits(found: Mapping[str, Figures]) -> str:
    """Each user's waits side by side."""
    lines = [f"{'wait p50 / p95 / max of':<28}" + "".join(f"{name:>27}" for name in found)]
    for user in sorted({user for each in found.values() for user in each.waits_s}):
        cells = (f"{p50:.1f} / {p95:.1f} / {most:.1f} s" for p50, p95, most in _of(user, found.values()))
        lines.append(f"{f'user {user + 1}':<28}" + "".join(f"{cell:>27}" for cell in cells))
    return "\n".join(lines)


def _of(user: int, found: Iterable[Figures]) -> Iterable[tuple[float, float, float]]:
    return (each.waits_s.get(user, (0.0, 0.0, 0.0)) for each in found)


ROWS: Sequence[tuple[str, Any]] = (
    ("jobs", lambda f: f"{f.jobs}"),
    ("makespan", lambda f: f"{f.makespan_s:.1f} s"),
    ("throughput", lambda f: f"{f.jobs_per_s:.2f} /s"),
    ("all users wait for", lambda f: f"{f.window_s:.1f} s"),
    ("  GPUs busy then", lambda f: f"{f.busy_share:.1%}"),
    ("  idle gap p50 / p95", lambda f: f"{f.gap_p50_ms:.0f} / {f.gap_p95_ms:.0f} ms"),
    ("  Jain's index", lambda f: f"{f.jain:.4f}"),
    ("  error of shares", lambda f: f"{f.share_error:.1%}"),
    ("wait p50 / p95 / max", lambda f: f"{f.wait_p50_s:.1f} / {f.wait_p95_s:.1f} / {f.wait_max_s:.1f} s"),
    ("light users' p50 / max", lambda f: f"{f.light_wait_p50_s:.1f} / {f.light_wait_max_s:.1f} s"),
    ("model swaps", lambda f: f"{f.swaps}"),
    ("lost / doubled jobs", lambda f: f"{f.lost} / {f.doubled}"),
)


async def until_up(server: BenchServer, token: str, engines: int) -> None:
    """Wait until all engines may take jobs. Raises Unavailable."""
    deadline = monotonic_s() + READY_S
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}, trust_env=False) as http:
        while monotonic_s() < deadline:
            async with http.get(f"{server.url}/cluster/api/v1/admin/backends") as response:
                found = (await response.json()).get("backends", [])
            if sum(one["health"] == "up" for one in found) == engines:
                return
            await asyncio.sleep(LOOK_S)
    raise Unavailable("The bench's engines did not come up.")


async def until_done(db: Database) -> None:
    """Wait until no job is left. Raises Unavailable when nothing ends any more."""
    count = select(func.count()).where(col(Job.state).in_(ACTIVE))
    left, since = -1, monotonic_s()
    while True:
        now = await db.read(lambda s: s.exec(count).one())
        if now == 0:
            return
        if now != left:
            left, since = now, monotonic_s()
        if monotonic_s() - since > STALL_S:
            raise Unavailable(f"{now} jobs of the load do not end.")
        await asyncio.sleep(LOOK_S)


async def engine_counters(url: str) -> dict[str, int]:
    """What an engine has counted."""
    async with aiohttp.ClientSession(trust_env=False) as http, http.get(f"{url}/engine") as response:
        counters: dict[str, int] = (await response.json())["counters"]
        return counters


async def submit(http: aiohttp.ClientSession, url: str, token: str, prompt: dict[str, Any]) -> str:
    """Queue one prompt; its id. Raises Unavailable when it is refused."""
    headers = {"Authorization": f"Bearer {token}"}
    async with http.post(f"{url}/prompt", json={"prompt": prompt}, headers=headers) as response:
        answer = await response.json()
        if response.status != 200:
            raise Unavailable("A prompt of the load was refused.", str(answer)[:300])
        return str(answer["prompt_id"])


async def _submit(server: BenchServer, tokens: list[str], plan: list[Order]) -> int:
    began = monotonic_s()
    async with aiohttp.ClientSession(trust_env=False) as http, asyncio.TaskGroup() as group:
        for order in plan:
            await asyncio.sleep(max(0.0, began + order.at_s - monotonic_s()))
            group.create_task(submit(http, server.url, tokens[order.user], order.prompt()))
    return len(plan)


def _people(db: Database, load: Load, due: Mapping[int, float]) -> list[tuple[int, str]]:
    """Number and token of each user; the first one may also ask about backends."""
    people = [account(db, f"user-{number}", admin=number == 0) for number in range(load.users)]
    for weight in sorted(set(due.values())):
        members = [people[user][0] for user, own in due.items() if own == weight]

        def work(session: Any, weight: float = weight, members: list[int] = members) -> None:
            group = group_rows.add(session, f"weight {weight:g}", {"weight": weight})
            for user_id in members:
                group_rows.assign(session, user_id, group.id)

        db.write_now(work)
    return people


def _done(row: Job, place: Mapping[int, int], load: Load) -> Done:
    user = place[row.user_id]
    ended = row.rendered_ms or row.ended_ms or 0
    placed, began = row.assigned_ms or 0, row.started_ms or 0
    return Done(user, row.backend_id or 0, row.created_ms, placed, began, ended, light=user >= load.users - load.light)
