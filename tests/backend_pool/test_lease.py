"""The lease on the database: one holder, renewed, lost, and what its loss fences."""

import asyncio

import pytest
from sqlmodel import Session

from backend_pool.comfy.result import Result
from backend_pool.job_state import JobState
from backend_pool.jobs.held import Fenced
from backend_pool.jobs.lease import ROW, Lease, LeaseLost
from backend_pool.jobs.store import JobStore
from backend_pool.model import DispatchLease, Job
from proxy.base.database import Database
from proxy.base.errors import ConfigError
from proxy.base.tasks import Tasks
from tests.backend_pool.graphs import saved
from tests.backend_pool.rig import submission

LONG_S = 3600.0
SHORT_S = 0.3


async def run_out(db: Database) -> None:
    """As if the holder had not renewed it for too long."""

    def end(s: Session) -> None:
        s.get_one(DispatchLease, ROW).until_ms = 1

    await db.write(end)


def leased(db: Database, lease: Lease) -> JobStore:
    """The store of the server that has the lease."""
    store = JobStore(db, 100, 100)
    store.may_place = lease.check
    return store


async def placed(store: JobStore) -> Job:
    """A job that is on a backend."""
    held = await store.assign((await store.submit(submission(saved()))).key, 1)
    assert held is not None
    return held


async def test_who_takes_over_fences_whoever_stood_still(db: Database) -> None:
    """What was carried can be ended by the new one alone, and the old one places nothing more."""
    first, second = (Lease(db, name, LONG_S, alone=False) for name in ("first", "second"))
    await first.acquire()
    old, new = leased(db, first), leased(db, second)
    carried, waiting = await placed(old), await old.submit(submission(saved()))
    await run_out(db)
    await second.acquire()
    with pytest.raises(Fenced):
        await old.running(carried)
    with pytest.raises(LeaseLost):
        await old.assign(waiting.key, 1)
    (taken,) = await new.on_backends()
    assert (taken.key, taken.upstream_id, taken.attempt) == (carried.key, carried.upstream_id, 1)
    ended = await new.finish(taken, JobState.SUCCEEDED, Result(), "test")
    assert ended.state is JobState.SUCCEEDED and await new.assign(waiting.key, 1) is not None


async def test_a_holder_that_lost_it_is_told_and_ends(db: Database) -> None:
    first, second = Lease(db, "first", SHORT_S, alone=False), Lease(db, "second", LONG_S, alone=False)
    told = asyncio.Event()
    first.on_lost.append(told.set)
    await first.acquire()
    await run_out(db)
    await second.acquire()
    tasks = Tasks()
    tasks.start("lease", first.watch(), vital=True)
    async with asyncio.timeout(10):
        await told.wait()
    assert first.lost
    await first.release()  # which takes nothing from the second
    store = leased(db, second)
    assert (await placed(store)).state is JobState.ASSIGNED
    await tasks.stop()


async def test_it_is_renewed_also_when_it_has_run_out_meanwhile(db: Database) -> None:
    """The database was away for longer: nobody else could take it either."""
    lease = Lease(db, "first", SHORT_S, alone=False)
    await lease.acquire()
    await run_out(db)
    tasks = Tasks()
    tasks.start("lease", lease.watch(), vital=True)
    async with asyncio.timeout(10):
        while (await db.read(lambda s: s.get_one(DispatchLease, ROW))).until_ms == 1:
            await asyncio.sleep(0.02)
    assert tasks.dead == {} and not lease.lost
    assert (await placed(leased(db, lease))).attempt == 1
    await tasks.stop()


async def test_nobody_gets_it_while_it_is_renewed(db: Database) -> None:
    lease = Lease(db, "host-a:/data", SHORT_S, alone=False)
    await lease.acquire()
    tasks = Tasks()
    tasks.start("lease", lease.watch(), vital=True)
    with pytest.raises(ConfigError, match="host-a:/data"):
        await Lease(db, "host-b:/data", SHORT_S, alone=False).acquire()
    assert tasks.dead == {}
    await tasks.stop()


async def test_the_next_one_waits_for_that_of_a_dead_server_only(db: Database) -> None:
    """Given back, or taken in the same place, it is free at once: with an hour to go, waiting would not end."""
    await Lease(db, "first", SHORT_S, alone=False).acquire()
    given_back = Lease(db, "second", LONG_S, alone=False)
    async with asyncio.timeout(10):
        await given_back.acquire()
        await given_back.release()
        await Lease(db, "third", LONG_S, alone=False).acquire()
        await Lease(db, "third", LONG_S, alone=False).acquire()
        await Lease(db, "fourth", LONG_S, alone=True).acquire()
