"""A used-up quota stops the next job, not the one after: what ends counts before the ledger is read again."""

import asyncio
from pathlib import Path

import pytest

from backend_pool.books.groups import Groups
from backend_pool.books.keeper import BooksKeeper
from backend_pool.books.ledger import Spent
from backend_pool.comfy.result import Result
from backend_pool.job_state import JobState
from backend_pool.jobs.held import Fenced
from backend_pool.jobs.store import JobStore
from backend_pool.model import Job
from proxy.base.settings import Settings
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import sampled, saved
from tests.backend_pool.rig import Rig, open_database, rig, submission


async def limited(r: Rig, quota_s: float) -> tuple[BooksKeeper, int]:
    """Users 1 and 2 in a group with a quota, composed as the proxy does; nothing reads the rows again by itself."""
    groups = Groups(r.db, Settings(data_dir=r.root))
    keeper = BooksKeeper(r.db, groups)
    group = await keeper.add("class", {"quota_s": quota_s})
    for user in (1, 2):
        await keeper.assign(user, group.id)
    r.store.charged = groups.charged
    groups.on_change.append(r.dispatcher.shares_changed)
    r.share_by(groups)
    return keeper, group.id or 0


async def test_the_job_after_the_last_one_is_not_placed(tmp_path: Path, start: Start) -> None:
    """Neither its user's next one nor another member's, who waits for nobody's files."""
    async with rig(tmp_path, start("--step-ms", "20").url) as r:
        keeper, group_id = await limited(r, 2)
        first, last = await r.submit(saved()), await r.submit(sampled(110))
        await r.heard.until(last, "execution_start")
        waiting = [(await r.submit(saved(), user), user) for user in (1, 2)]
        for prompt_id in (first, last):
            assert (await r.final(prompt_id))[0].state is JobState.SUCCEEDED
        quota = keeper.groups.quota(2)
        assert quota is not None and quota.exhausted
        why = keeper.groups.blocked(2)
        rows = [(await r.entry(prompt_id, user))[0] for prompt_id, user in waiting]
        await r.eventually(lambda: why is not None and all(r.dispatcher.reason(row.key) == why for row in rows))
        rows = [(await r.entry(prompt_id, user))[0] for prompt_id, user in waiting]
        assert [(row.state, row.attempt) for row in rows] == [(JobState.QUEUED, 0)] * 2
        await keeper.groups.reload()
        again = keeper.groups.quota(2)
        assert again is not None and again.used_s == quota.used_s, "what is in the ledger counts once"
        await keeper.change(group_id, {"quota_s": 100})
        for prompt_id, user in waiting:
            assert (await r.final(prompt_id, user))[0].state is JobState.SUCCEEDED


async def ended(store: JobStore, gpu_ms: int, user_id: int = 1) -> Job:
    """A job that took so much."""
    held = await store.assign((await store.submit(submission(saved(), user_id))).key, 1)
    assert held is not None
    return await store.finish(held, JobState.SUCCEEDED, Result(), "test", spent=Spent(gpu_ms))


async def test_what_ends_counts_at_once(tmp_path: Path) -> None:
    """Before the rows are read again, and once; not what was not charged after all."""
    db = open_database(tmp_path)
    store, keeper = JobStore(db, 9, 9), BooksKeeper(db, Groups(db, Settings(data_dir=tmp_path)))
    store.charged = keeper.groups.charged
    rung: list[int] = []
    group = await keeper.add("class", {"quota_s": 10})
    await keeper.assign(1, group.id)
    keeper.groups.on_change.append(lambda: rung.append(1))

    def used_s() -> float:
        quota = keeper.groups.quota(1)
        return -1.0 if quota is None else quota.used_s

    job = await ended(store, 6000)
    await ended(store, 60_000, 2)
    assert used_s() == 6 and not rung
    for _ in range(2):
        await keeper.groups.reload()
        assert used_s() == 6 and not rung
    with pytest.raises(Fenced):
        await store.finish(job, JobState.FAILED, Result(), "late", spent=Spent(9000))
    assert used_s() == 6 and len(rung) == 2, "stopped, and let go on"
    lost = await store.assign((await store.submit(submission(saved()))).key, 1)
    assert lost is not None
    keeper.groups.charged(lost, 5000)  # as when its backend has ended it
    assert keeper.groups.blocked(1) is not None
    await keeper.groups.reload()
    assert used_s() == 11, "it is not in the ledger"
    await store.requeue(lost, "its files were lost")
    assert used_s() == 6 and keeper.groups.blocked(1) is None
    await asyncio.to_thread(db.close)
