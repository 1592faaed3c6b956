"""What is kept of jobs and how it is listed: history windows, pages, limits by number and size, forgetting."""

import pytest
from sqlmodel import select

from backend_pool.comfy.result import Result
from backend_pool.job_state import ACTIVE, FINAL, JobState
from backend_pool.jobs import queries as job_queries
from backend_pool.jobs.queries import JobOrder, JobQueries, Listed, Window
from backend_pool.jobs.store import JobStore
from backend_pool.model import Job, JobDocument
from proxy.base.database import Database
from proxy.base.errors import TooManyRequests
from tests.backend_pool.graphs import PICTURE, saved
from tests.backend_pool.rig import submission


async def ended(store: JobStore, prompt_id: str, user_id: int = 1, state: JobState = JobState.SUCCEEDED) -> Job:
    """A job with a result."""
    job = await store.submit(submission(saved(), user_id, prompt_id=prompt_id))
    held = await store.assign(job.key, 1)
    assert held is not None
    return await store.finish(held, state, PICTURE, "test")


async def shown(queries: JobQueries, listed: list[Listed]) -> list[str]:
    """The prompt ids of a list, read the way routes read it."""
    return [job.prompt_id async for part in queries.parts(listed) for job, _ in part]


async def test_history_windows_are_comfyui_s(store: JobStore, queries: JobQueries) -> None:
    """`max_items` alone gives the last ones, `offset` counts from the oldest (execution.py get_history)."""
    for number in range(5):
        await ended(store, f"p{number}")
    await store.submit(submission(saved(), prompt_id="waiting"))
    await ended(store, "theirs", 2)

    async def ids(limit: int | None, skip: int | None) -> list[str]:
        return await shown(queries, await queries.history(1, Window(limit, skip)))

    assert await ids(None, 0) == ["p0", "p1", "p2", "p3", "p4"]
    assert await ids(2, None) == ["p3", "p4"]
    assert await ids(None, None) == ["p0", "p1", "p2", "p3", "p4"]
    assert await ids(2, 1) == ["p1", "p2"]
    assert await ids(2, 4) == ["p4"]
    assert await ids(2, 9) == []


async def test_pages(store: JobStore, queries: JobQueries) -> None:
    """Newest first, a total over all pages, filtered by state and workflow."""
    for number in range(3):
        await ended(store, f"p{number}", state=JobState.FAILED if number == 1 else JobState.SUCCEEDED)
    extra = {"extra_pnginfo": {"workflow": {"id": "w"}}}
    await store.submit(submission(saved(), prompt_id="q", extra_data=extra))

    async def ids(
        order: JobOrder, window: Window, states: frozenset[JobState] = ACTIVE | FINAL
    ) -> tuple[list[str], int]:
        page = await queries.page(1, states, order, window)
        return await shown(queries, page.jobs), page.total

    assert await ids(JobOrder(), Window(2, 0)) == (["q", "p2"], 4)
    assert await ids(JobOrder(), Window(2, 2)) == (["p1", "p0"], 4)
    assert await ids(JobOrder(descending=False), Window(1, 1)) == (["p1"], 4)
    assert await ids(JobOrder(workflow_id="w"), Window()) == (["q"], 1)
    assert await ids(JobOrder(), Window(), frozenset({JobState.FAILED})) == (["p1"], 1)
    assert (await ids(JobOrder(by_duration=True), Window()))[1] == 4
    assert await shown(queries, await queries.active(1)) == ["q"]


async def test_forget_and_prune_touch_one_user_s_finished_jobs(
    store: JobStore, queries: JobQueries, db: Database
) -> None:
    """Documents go with their jobs."""
    for number in range(5):
        await ended(store, f"p{number}")
    await store.submit(submission(saved(), prompt_id="waiting"))
    await ended(store, "p1", 2)
    await store.prune(1)
    assert await shown(queries, await queries.history(1, Window())) == ["p2", "p3", "p4"]
    await store.forget(1, ["p2", "waiting", "p1"])
    assert await shown(queries, await queries.history(1, Window())) == ["p3", "p4"]
    await store.forget(1, None)
    assert await queries.history(1, Window()) == [] and await queries.remaining(1) == 1
    assert len(await queries.history(2, Window())) == 1
    left = await db.read(lambda s: (s.exec(select(Job.seq)).all(), s.exec(select(JobDocument.seq)).all()))
    assert sorted(map(int, filter(None, left[0]))) == sorted(left[1]) and len(left[1]) == 2


async def test_a_user_s_documents_have_a_size(db: Database, queries: JobQueries) -> None:
    """Finished ones give way, the oldest first; waiting ones are refused; others are not concerned."""
    store = JobStore(db, queue_limit=50, history_limit=50, history_mb=1)
    large = {"note": "x" * 300_000}
    for number in range(5):
        job = await store.submit(submission(saved(), prompt_id=f"p{number}", extra_data=large))
        held = await store.assign(job.key, 1)
        assert held is not None
        await store.finish(held, JobState.SUCCEEDED, PICTURE, "test")
    assert all(300_000 < job.size < 310_000 for job in await queries.history(1, Window()))
    await store.prune(1)
    assert await shown(queries, await queries.history(1, Window())) == ["p2", "p3", "p4"]
    for _ in range(4):
        await store.submit(submission(saved(), extra_data=large))
    with pytest.raises(TooManyRequests, match="1 MB"):
        await store.submit(submission(saved()))
    await store.submit(submission(saved(), 2))
    await store.prune(1)  # the waiting ones count, and the newest finished one stays
    assert await shown(queries, await queries.history(1, Window())) == ["p4"]


async def test_results_count_for_the_size(store: JobStore, queries: JobQueries) -> None:
    """A backend's answer may be larger than what was sent to it."""
    job = await store.submit(submission(saved(), prompt_id="p"))
    (before,) = await queries.active(1)
    held = await store.assign(job.key, 1)
    assert held is not None
    await store.finish(held, JobState.SUCCEEDED, Result({"1": {"text": ["x" * 50_000]}}), "test")
    (after,) = await queries.history(1, Window())
    assert 0 < before.size < 50_000 < after.size - before.size < 51_000


async def test_a_long_list_is_read_in_parts(
    store: JobStore, queries: JobQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By rows and by size, in order; what was deleted meanwhile is left out."""
    for number in range(5):
        await ended(store, f"p{number}")
    listed = await queries.history(1, Window())
    monkeypatch.setattr(job_queries, "PART_ROWS", 2)
    assert [len(part) async for part in queries.parts(listed)] == [2, 2, 1]
    monkeypatch.setattr(job_queries, "PART_SIZE", listed[0].size - 1)
    assert [len(part) async for part in queries.parts(listed)] == [1] * 5
    await store.forget(1, ["p1"])
    assert await shown(queries, listed) == ["p0", "p2", "p3", "p4"]
