"""Backends that are restarted in turn: real engines with the pack, which begin anew in place."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from backend_pool.backends.member import Member
from backend_pool.backends.restart_rows import RestartRows
from backend_pool.backends.restart_turn import Stage
from backend_pool.backends.restarts import Restarts
from backend_pool.job_state import JobState
from tests.backend_pool.graphs import sampled, saved
from tests.worker_pack.cluster import Begin, Hub, hub

HANG = {"fault": "hang_job", "node": "KSampler", "step": 2, "heeds_interrupt": True}


@contextlib.asynccontextmanager
async def looked_after(root: Path, **settings: Any) -> AsyncIterator[tuple[Hub, Restarts, asyncio.Task[None]]]:
    """A pool whose backends can be restarted, and the task that does it."""
    async with hub(root, **settings) as h:
        restarts = restarts_of(h)
        yield h, restarts, h.rig.tasks.start("first restarts", restarts.watch())


def restarts_of(h: Hub) -> Restarts:
    return Restarts(RestartRows(h.rig.db), h.rig.pool, h.settings, h.rig.dispatcher.ring)


async def go_on(member: Member) -> None:
    """Take all orders back; a hung job goes on. Only the dispatcher is let in."""
    async with member.client.call("DELETE", "/engine/faults") as answer:
        assert answer.status == 200


async def pair(h: Hub) -> list[Member]:
    """The two workers once they are idle, as the pool numbers them. An engine that begins anew has another port, and
    with it another member."""
    return sorted([await h.member("worker-one"), await h.member("worker-two")], key=lambda member: member.key)


async def settled(h: Hub, restarts: Restarts) -> None:
    """Until nothing is to be restarted any more."""
    await h.rig.eventually(
        lambda: all(restarts.stage(member.row) is Stage.NONE for member in h.rig.pool.members.values())
    )


async def test_one_after_the_other_and_never_two_away(tmp_path: Path, begin: Begin) -> None:
    async with looked_after(tmp_path) as (h, restarts, task):
        for name in ("worker-one", "worker-two"):
            begin(h.config(tmp_path / f"{name}.json", name))
        first, second = await pair(h)
        before = first.proven, second.proven
        for member in (first, second):
            await member.client.post("/engine/faults", HANG)
        prompt_id = await h.rig.submit(sampled())
        await h.rig.heard.until(prompt_id, "execution_start")
        busy, free = (first, second) if first.job is not None else (second, first)
        await go_on(free)

        seen: set[tuple[Stage, ...]] = set()
        h.rig.pool.on_change.append(lambda: seen.add(tuple(restarts.stage(m.row) for m in h.rig.pool.members.values())))
        await restarts.rows.ask_all()
        await h.rig.pool.refresh()
        # The busy one waits for its job; other work goes on, on whichever is not held.
        if busy is first:
            await h.rig.eventually(lambda: first.held is not None)
            assert second.held is None and restarts.stage(second.row) is Stage.WAITING
            other, _ = await h.rig.run(saved(), user_id=2)
            assert (other.state, other.backend_id) == (JobState.SUCCEEDED, second.key)
        assert busy.job is not None
        await go_on(busy)
        job, _ = await h.rig.final(prompt_id)
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1), "it was waited for"
        await h.rig.eventually(lambda: any(Stage.RESTARTING in stages for stages in seen))
        task.cancel()  # the server ends meanwhile; the next one knows what stands in the rows
        h.rig.tasks.start("restarts", restarts_of(h).watch(), vital=True)
        await settled(h, restarts)
        assert {member.proven for member in await pair(h)}.isdisjoint(before)
        assert not any(stages.count(Stage.RESTARTING) > 1 for stages in seen)
        assert (await h.rig.run(saved()))[0].state is JobState.SUCCEEDED


async def test_it_stops_at_one_that_does_not_come_back(tmp_path: Path, begin: Begin) -> None:
    async with looked_after(tmp_path, restart_timeout_s=0.5) as (h, restarts, _):
        for name in ("worker-one", "worker-two"):
            begin(h.config(tmp_path / f"{name}.json", name))
        first, second = await pair(h)
        before = second.proven
        (tmp_path / f"{first.row.name}.json").unlink()  # without its settings it does not begin
        await restarts.rows.ask_all()
        await h.rig.pool.refresh()
        await h.rig.eventually(lambda: restarts.stage(second.row) is Stage.NONE)
        assert restarts.stage(first.row) is Stage.LOST
        assert second.proven == before and second.held is None, "the other serves on"
        assert (await h.rig.run(saved()))[0].backend_id == second.key
