"""The job table on real databases: limits, order, compare-and-set, fencing, cancel."""

import asyncio

import pytest

from backend_pool.job_state import ACTIVE, ON_BACKEND, IllegalTransition, JobState
from backend_pool.jobs.held import Fenced
from backend_pool.jobs.queries import JobQueries
from backend_pool.jobs.row import TRAIL_LENGTH
from backend_pool.jobs.store import JobStore
from backend_pool.model import JsonDict
from proxy.base.errors import Conflict, TooManyRequests
from tests.backend_pool.graphs import PICTURE, saved
from tests.backend_pool.rig import submission


async def test_numbers_count_per_user(store: JobStore) -> None:
    """As ComfyUI's counter, but nobody's activity shows in another's; `front` is negative, a given number verbatim."""
    numbers = [(await store.submit(submission(saved(), user_id))).number for user_id in (1, 2, 1, 2, 2)]
    assert numbers == [1.0, 1.0, 2.0, 2.0, 3.0]
    assert (await store.submit(submission(saved(), 1, front=True))).number == -3.0
    assert (await store.submit(submission(saved(), 1, number=0.5))).number == 0.5


async def test_the_queue_has_a_limit_per_user(store: JobStore) -> None:
    """What is cancelled or finished makes room; others are not concerned."""
    jobs = [await store.submit(submission(saved())) for _ in range(5)]
    with pytest.raises(TooManyRequests, match="full: 5 jobs"):
        await store.submit(submission(saved()))
    await store.submit(submission(saved(), 2))
    await store.cancel(1, [jobs[2].prompt_id], ACTIVE)
    await store.submit(submission(saved()))


async def test_an_active_prompt_id_is_refused_and_a_finished_one_gives_way(
    store: JobStore, queries: JobQueries
) -> None:
    """ComfyUI's history is overwritten too; another user may have the same id."""
    first = await store.submit(submission(saved(), prompt_id="p"))
    with pytest.raises(Conflict):
        await store.submit(submission(saved(), prompt_id="p"))
    await store.submit(submission(saved(), 2, prompt_id="p"))
    held = await store.assign(first.key, 1)
    assert held is not None
    await store.finish(held, JobState.SUCCEEDED, PICTURE, "test")
    again = await store.submit(submission(saved(), prompt_id="p"))
    assert again.key > first.key
    found = await queries.one(1, "p")
    assert found is not None and found[0].state is JobState.QUEUED and found[1].outputs == {}


async def test_a_job_is_assigned_once(store: JobStore) -> None:
    """Whoever comes second gets nothing."""
    job = await store.submit(submission(saved()))
    results = await asyncio.gather(*(store.assign(job.key, backend) for backend in range(1, 9)))
    assert sum(result is not None for result in results) == 1
    held = next(result for result in results if result is not None)
    assert held.upstream_id and held.upstream_client and held.attempt == held.epoch == 1


async def test_an_old_owner_is_fenced(store: JobStore) -> None:
    """After a requeue nothing it writes counts."""
    job = await store.submit(submission(saved()))
    old = await store.assign(job.key, 1)
    assert old is not None
    await store.requeue(old, "lost")
    new = await store.assign(job.key, 2)
    assert new is not None and new.attempt == 2 and new.upstream_id != old.upstream_id
    for write in (
        store.running(old),
        store.collecting(old, PICTURE),
        store.finish(old, JobState.SUCCEEDED, PICTURE, "late"),
        store.requeue(old, "late"),
        store.note_files(old, [{}]),
        store.check_held(old),
    ):
        with pytest.raises(Fenced):
            await write
    assert (await store.finish(new, JobState.SUCCEEDED, PICTURE, "ok")).state is JobState.SUCCEEDED
    with pytest.raises(Fenced):
        await store.finish(new, JobState.FAILED, PICTURE, "twice")


async def test_an_illegal_change_shows_the_job_s_recent_history(store: JobStore) -> None:
    """A bug is found by what led to it."""
    job = await store.submit(submission(saved()))
    held = await store.assign(job.key, 1)
    assert held is not None
    await store.collecting(held, PICTURE)
    with pytest.raises(IllegalTransition, match="backend done"):
        await store.running(held)


async def test_a_requeue_keeps_the_place(store: JobStore) -> None:
    """It stands before what came later, as if it had never left; an attempt no backend had is taken back."""
    first, second = [await store.submit(submission(saved())) for _ in range(2)]
    held = await store.assign(first.key, 1)
    assert held is not None
    back = await store.requeue(await store.running(held), "lost", counts=False)
    assert (back.number, back.attempt, back.started_ms, back.upstream_id) == (first.number, 0, None, None)
    assert [job.key for job in (await store.queue.firsts({1: 2}))[1]] == [first.key, second.key]


async def test_a_user_s_first_jobs(store: JobStore) -> None:
    """By number, then by arrival; in each lane by itself."""
    order: list[JsonDict] = [{}, {"front": True}, {"number": 7.0}, {"number": 7.0}]
    jobs = [await store.submit(submission(saved(), 2, **more)) for more in order]
    found = await store.queue.firsts({1: 5, 2: 3})
    assert [job.key for job in found[2]] == [jobs[1].key, jobs[0].key, jobs[2].key] and found[1] == []
    await store.assign(jobs[1].key, 1)
    assert [job.key for job in (await store.queue.firsts({2: 1}))[2]] == [jobs[0].key]
    assert await store.users_with_jobs() == {2}
    assert [job.key for job in await store.on_backends()] == [jobs[1].key]
    assert {user: count.jobs for user, count in (await store.queue.census()).items()} == {2: 3}


async def test_virtual_times_are_kept_with_the_end_of_a_job(store: JobStore) -> None:
    """Nobody's turn is lost with the process."""
    store.virtual_s = lambda job: {1: 12.5}.get(job.user_id)
    job = await store.submit(submission(saved()))
    held = await store.assign(job.key, 1)
    assert held is not None and await store.queue.virtual_times() == {}
    await store.finish(held, JobState.SUCCEEDED, PICTURE, "test")
    assert await store.queue.virtual_times() == {1: 12.5}
    await store.queue.store_virtual_times({1: 13.0, 2: 1.0})
    assert await store.queue.virtual_times() == {1: 13.0, 2: 1.0}


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.ASSIGNED, JobState.RUNNING, JobState.COLLECTING])
async def test_cancel_in_each_state(store: JobStore, queries: JobQueries, state: JobState) -> None:
    """A waiting job ends now; one on a backend carries the flag, its runner ends it."""
    job = await store.submit(submission(saved(), prompt_id="p"))
    if state in ON_BACKEND:
        held = await store.assign(job.key, 1)
        assert held is not None
        if state is JobState.RUNNING:
            await store.running(held)
        elif state is JobState.COLLECTING:
            await store.collecting(held, PICTURE)
    assert await store.cancel(2, ["p"], ACTIVE) == [] == await store.cancel(1, ["q"], ACTIVE)
    assert await store.cancel(1, ["p"], ACTIVE - {state}) == []
    (touched,) = await store.cancel(1, None, ACTIVE)
    assert touched.cancel_requested
    assert touched.state is (JobState.CANCELLED if state is JobState.QUEUED else state)
    assert await queries.remaining(1) == (0 if state is JobState.QUEUED else 1)
    assert (await queries.one(1, "p") is None) == (state is JobState.QUEUED)


async def test_a_finished_job_is_not_cancelled(store: JobStore) -> None:
    """It has ended."""
    job = await store.submit(submission(saved(), prompt_id="p"))
    held = await store.assign(job.key, 1)
    assert held is not None
    await store.finish(held, JobState.SUCCEEDED, PICTURE, "test")
    assert await store.cancel(1, ["p"], frozenset(JobState)) == []


async def test_a_deleted_job_is_fenced(store: JobStore) -> None:
    """Its user, or an administrator, removed it meanwhile."""
    with pytest.raises(Fenced):
        await store.document(12345)
    assert await store.assign(12345, 1) is None


async def test_the_trail_is_bounded(store: JobStore) -> None:
    """However often a job goes to and fro."""
    job = await store.submit(submission(saved()))
    for _ in range(40):
        held = await store.assign(job.key, 1)
        assert held is not None
        await store.requeue(held, "lost")
    held = await store.assign(job.key, 1)
    assert held is not None and len(held.trail) == TRAIL_LENGTH
