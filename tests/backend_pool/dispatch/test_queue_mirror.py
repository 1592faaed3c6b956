"""The front of the queue in memory, over real rows: what is at it, when it is read again, and what reading costs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func
from sqlmodel import col, delete, select

from backend_pool.dispatch import queue_mirror
from backend_pool.dispatch.queue_mirror import DEEPEST, DEPTH, USERS_AT_ONCE, QueueMirror
from backend_pool.job_state import JobState
from backend_pool.jobs.queue_reads import CENSUS, firsts, highest
from backend_pool.jobs.store import JobStore
from backend_pool.lane import Lane
from backend_pool.model import Job
from proxy.base.database import Database
from proxy.base.errors import DatabaseUnavailable
from tests.backend_pool.graphs import saved
from tests.backend_pool.rig import open_database, submission


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    made = open_database(tmp_path)
    yield made
    await asyncio.to_thread(made.close)


@pytest.fixture
def store(db: Database) -> JobStore:
    """Room for many."""
    return JobStore(db, queue_limit=100_000, history_limit=100)


def mirror(store: JobStore, passed_by: Callable[[Job], bool] = lambda _job: False) -> QueueMirror:
    """An empty one."""
    return QueueMirror(store.queue, passed_by)


def rows(db: Database, user_id: int, count: int, **more: Any) -> None:
    """That many waiting jobs, without documents."""
    given = {"created_ms": 1, "state": JobState.QUEUED, **more}
    start = db.read_now(lambda s: s.exec(select(func.count()).select_from(Job)).one())
    jobs = [
        Job(prompt_id=f"{user_id}-{start + n}", user_id=user_id, number=float(start + n), **given) for n in range(count)
    ]
    db.write_now(lambda s: s.add_all(jobs))


def remove(db: Database, *jobs: Job) -> None:
    """As another process might."""
    gone = [job.key for job in jobs]
    db.write_now(lambda s: s.exec(delete(Job).where(col(Job.seq).in_(gone))))


async def test_the_first_jobs_of_each_user_are_at_the_front(db: Database, store: JobStore) -> None:
    rows(db, 1, 3)
    rows(db, 2, DEPTH + 4)
    queue = mirror(store)
    await queue.count()
    changes = await queue.refresh()
    assert len(changes.came) == 3 + DEPTH and changes.went == [] and not queue.stale
    assert (queue.waiting(1), queue.waiting(2), queue.waiting(3)) == (3, DEPTH + 4, 0)
    assert [job.number for job in queue.of(1)] == [0.0, 1.0, 2.0]
    assert sorted(job.user_id for job in queue.heads()) == [1, 2]
    queue.take(queue.of(1)[0].key)
    assert queue.waiting(1) == 2  # one that has just been placed takes no place in line until the next count


async def test_the_order_is_by_priority_then_number_and_lanes_are_apart(db: Database, store: JobStore) -> None:
    """A thousand batch jobs do not hide an interactive one that was sent after them."""
    rows(db, 1, 2)
    rows(db, 1, 2, priority=3)
    rows(db, 1, 1, priority=-1)
    rows(db, 1, 2 * DEPTH, lane=Lane.BATCH)
    queue = mirror(store)
    queue.touch(1)
    await queue.refresh()
    found = queue.of(1)
    own = [(job.priority, job.number) for job in found if job.lane is Lane.INTERACTIVE]
    assert own == [(3, 2.0), (3, 3.0), (0, 0.0), (0, 1.0), (-1, 4.0)]
    assert sum(job.lane is Lane.BATCH for job in found) == DEPTH
    assert next(iter(queue.heads())).number == 2.0


async def test_more_is_read_when_few_are_left(db: Database, store: JobStore) -> None:
    """And nothing before."""
    rows(db, 1, 2 * DEPTH)
    queue = mirror(store)
    queue.touch(1)
    await queue.refresh()
    jobs = queue.of(1)
    for job in jobs[: DEPTH // 2 - 1]:
        assert queue.take(job.key) is job and not queue.stale
    taken = jobs[: DEPTH // 2]
    queue.take(taken[-1].key)
    assert queue.stale
    remove(db, *taken)
    changes = await queue.refresh()
    assert len(changes.came) == DEPTH // 2 and len(queue.of(1)) == DEPTH


async def test_a_census_finds_what_others_did(db: Database, store: JobStore) -> None:
    """Another process submits and cancels; users without a change are not read again."""
    rows(db, 1, 2)
    rows(db, 2, 2)
    queue = mirror(store)
    await queue.count()
    await queue.refresh()
    await queue.count()
    assert not queue.stale
    cancelled = queue.of(1)[0]
    remove(db, cancelled)
    rows(db, 3, 1)
    await queue.count()
    changes = await queue.refresh()
    assert changes.went == [cancelled.key] and [job.user_id for job in changes.came] == [3]
    assert cancelled.key not in queue and len(queue) == 4
    remove(db, *queue.of(3))
    await queue.count()
    assert len((await queue.refresh()).went) == 1 and set(queue.users) == {1, 2}


async def test_jobs_on_their_way_are_passed_by(db: Database, store: JobStore) -> None:
    """Until they are let go and their user is looked at again."""
    job = await store.submit(submission(saved()))
    on_their_way = {job.key}
    queue = mirror(store, lambda row: row.key in on_their_way)
    queue.touch(1)
    assert (await queue.refresh()).came == [] and len(queue) == 0
    on_their_way.clear()
    queue.touch(1)
    assert [row.key for row in (await queue.refresh()).came] == [job.key]


async def test_one_looks_deeper_for_a_while(db: Database, store: JobStore) -> None:
    """As far as DEEPEST, and less far again once jobs are taken."""
    rows(db, 1, 2 * DEEPEST)
    queue = mirror(store)
    queue.touch(1)
    await queue.refresh()
    for _ in range(10):
        queue.deepen(1)
        await queue.refresh()
    assert len(queue.of(1)) == DEEPEST
    for job in queue.of(1)[: DEEPEST // 2]:
        queue.take(job.key)
        remove(db, job)
    await queue.refresh()
    assert len(queue.of(1)) == DEEPEST // 2


async def test_many_users_are_read_in_parts(db: Database, store: JobStore) -> None:
    """So that placing need not wait for all of them; whose turn it is first."""
    for user in range(1, USERS_AT_ONCE + 3):
        rows(db, user, 1)
    queue = mirror(store)
    await queue.count()
    assert len((await queue.refresh(lambda user: -user)).came) == USERS_AT_ONCE
    assert queue.stale and 1 not in queue.users and 3 in queue.users
    assert {job.user_id for job in (await queue.refresh()).came} == {1, 2} and not queue.stale


async def test_what_could_not_be_read_stays_stale(
    db: Database, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database was away for a moment; nothing is forgotten, and nothing that is known is lost."""
    rows(db, 1, 1)
    queue = mirror(store)
    queue.touch(1)
    await queue.refresh()
    rows(db, 1, 1)
    queue.touch(1)

    async def away(_work: object) -> None:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(db, "read", away)
        with pytest.raises(DatabaseUnavailable):
            await queue.refresh()
    assert queue.stale and len(queue.of(1)) == 1
    await queue.refresh()
    assert len(queue.of(1)) == 2 and not queue.stale


async def test_where_many_wait_less_of_each_is_kept(
    db: Database, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that all of them fit; two of each at least, and nobody's queue is looked at deeper."""
    monkeypatch.setattr(queue_mirror, "WINDOW", 16)
    for user, count in ((1, 9), (2, 9), (3, 1), (4, 9)):
        rows(db, user, count)
    queue = mirror(store)
    await queue.count()
    await queue.refresh()
    assert [len(queue.of(user)) for user in (1, 2, 3, 4)] == [4, 4, 1, 4]
    queue.deepen(1)
    await queue.refresh()
    assert len(queue.of(1)) == 8
    rows(db, 5, 9)
    await queue.count()
    await queue.refresh()
    assert len(queue.of(5)) == 3 and len(queue) == 20
    queue.deepen(2)
    assert not queue.stale
    monkeypatch.setattr(queue_mirror, "WINDOW", 1)
    rows(db, 6, 9)
    await queue.count()
    await queue.refresh()
    assert len(queue.of(6)) == queue_mirror.LEAST_DEPTH


def test_reading_uses_the_indexes(db: Database) -> None:
    """A round reads what it returns; the census alone goes over all waiting jobs, in an index."""
    rows(db, 1, 50)
    rows(db, 2, 50, state=JobState.SUCCEEDED)
    for query in (CENSUS, firsts(1, Lane.BATCH, 0, 5), highest(1, Lane.BATCH), highest(1, Lane.BATCH, 3)):
        sql = str(query.compile(db.reader, compile_kwargs={"literal_binds": True}))
        with db.reader.connect() as connection:
            plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}")]
        assert all("USING" in step and "INDEX" in step for step in plan), plan
        assert not any("TEMP B-TREE" in step for step in plan), plan
