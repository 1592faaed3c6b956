"""Ledger, groups, quotas and usage as rows, and what is taken out of them, on real databases."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, col, select

from backend_pool.books import group_rows, groups, ledger, reservations, usage
from backend_pool.books.groups import Groups
from backend_pool.books.keeper import BooksKeeper
from backend_pool.books.ledger import Spent
from backend_pool.books.quotas import Used
from backend_pool.books.tables import Group, LedgerEntry, QuotaPeriod, Reservation
from backend_pool.books.usage import By, Span
from backend_pool.comfy.result import Result
from backend_pool.job_state import ACTIVE, JobState
from backend_pool.jobs.held import Fenced
from backend_pool.jobs.store import JobStore
from backend_pool.jobs.upkeep import Upkeep
from backend_pool.lane import Lane
from backend_pool.model import Backend, Job
from proxy.base.clock import now_ms
from proxy.base.database import Database
from proxy.base.errors import BadInput, Conflict, NotFound
from proxy.base.settings import Settings
from tests.backend_pool.graphs import saved
from tests.backend_pool.rig import submission

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
ALWAYS = Span(20000101, 99991231)


@pytest.fixture
def store(db: Database) -> JobStore:
    return JobStore(db, queue_limit=50, history_limit=50)


@pytest.fixture
def keeper(db: Database, tmp_path: Path) -> BooksKeeper:
    return BooksKeeper(db, Groups(db, Settings(data_dir=tmp_path, queue_limit=50)))


async def ended(
    store: JobStore, spent: Spent | None, user_id: int = 1, state: JobState = JobState.SUCCEEDED, **more: Any
) -> Job:
    """A job that ran on backend 1."""
    job = await store.submit(submission(saved(), user_id, **more))
    held = await store.assign(job.key, 1)
    assert held is not None
    return await store.finish(held, state, Result(), "test", spent=spent)


async def booked(db: Database) -> list[LedgerEntry]:
    return list(await db.read(lambda s: s.exec(select(LedgerEntry).order_by(col(LedgerEntry.id))).all()))


async def test_every_end_is_booked_once(db: Database, store: JobStore, keeper: BooksKeeper) -> None:
    """With the group of that moment; also a job that never ran, with nothing spent; and nothing for a fenced owner."""
    group = await keeper.add("research", {})
    await keeper.assign(1, group.id)
    job = await ended(store, Spent(4000, 1000, 3000, "gpu-1", "A100"), lane=Lane.BATCH)
    with pytest.raises(Fenced):
        await store.finish(job, JobState.FAILED, Result(), "late", spent=Spent(gpu_ms=9))
    waiting = await store.submit(submission(saved(), 2))
    await store.cancel(2, None, ACTIVE)
    await db.write(lambda s: ledger.enter(s, s.get_one(Job, job.key), Spent(gpu_ms=9)))
    first, second = await booked(db)
    assert (first.job_seq, first.group_name, first.backend, first.device) == (job.key, "research", "gpu-1", "A100")
    assert (first.gpu_ms, first.load_ms, first.run_ms, first.attempts) == (4000, 1000, 3000, 1)
    assert (first.lane, first.result, first.day) == (Lane.BATCH, JobState.SUCCEEDED, ledger.day_of(first.ended_ms))
    assert (second.job_seq, second.result, second.gpu_ms) == (waiting.key, JobState.CANCELLED, 0)
    assert second.group_name == "" and second.backend == ""


async def test_an_end_without_figures_is_booked_from_its_row(db: Database, store: JobStore) -> None:
    """A runner that died cannot say what the job took."""
    await db.write(lambda s: s.add(Backend(id=1, name="gpu-1", url="http://a", source="registered", created_ms=0)))
    job = await store.submit(submission(saved()))
    held = await store.assign(job.key, 1)
    assert held is not None
    held = await store.running(held, now_ms() - 5000)
    await store.finish(held, JobState.FAILED, Result(), "died")
    (entry,) = await booked(db)
    assert entry.run_ms >= 5000 and entry.gpu_ms >= 5000 and entry.backend == "gpu-1"


async def test_the_history_goes_and_the_ledger_stays(db: Database, store: JobStore) -> None:
    await ended(store, Spent(1000))
    await store.forget(1, None)
    assert [entry.gpu_ms for entry in await booked(db)] == [1000]


async def test_a_share_is_the_groups_or_the_settings(keeper: BooksKeeper) -> None:
    rung: list[int] = []
    keeper.groups.on_change.append(lambda: rung.append(1))
    fields = {"weight": 2.5, "running_limit": 4, "labels": ["fast", "gpu=a100"], "priority_limit": 5}
    group = await keeper.add("research", fields)
    await keeper.assign(7, group.id)
    own = keeper.groups.share(7)
    assert (own.group, own.weight, own.running_limit, own.queue_limit) == ("research", 2.5, 4, 50)
    assert (own.priority_limit, own.labels) == (5, frozenset({"fast", "gpu=a100"}))
    other = keeper.groups.share(8)
    assert (other.group, other.weight, other.running_limit, other.labels) == ("", 1.0, 1, frozenset())
    assert len(rung) >= 2
    before = len(rung)
    await keeper.groups.reload()
    assert len(rung) == before, "nothing changed, nobody is woken"
    await keeper.change(group.id or 0, {"running_limit": None})
    assert keeper.groups.share(7).running_limit == 1
    await keeper.leave(7, (group.id or 0) + 1)
    assert keeper.groups.share(7).group == "research", "that was another group"
    await keeper.remove(group.id or 0)
    assert keeper.groups.share(7).group == "" and (await keeper.listing())[1] == {}


async def test_what_another_process_changes_is_heard_of(
    db: Database, keeper: BooksKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line writes rows; nobody tells the server."""
    monkeypatch.setattr(groups, "LOOK_EVERY_S", 0.01)
    heard = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(keeper.groups.watch())
        await keeper.groups.reload()
        keeper.groups.on_change.append(heard.set)

        def work(s: Session) -> None:
            group_rows.assign(s, 7, group_rows.add(s, "class", {"weight": 3}).id)

        await db.write(work)
        await asyncio.wait_for(heard.wait(), 30)
        watching.cancel()
    assert keeper.groups.share(7).weight == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"weight": 0},
        {"weight": 1001},
        {"weight": float("nan")},
        {"weight": None},
        {"running_limit": 0},
        {"queue_limit": -1},
        {"priority_limit": -1},
        {"run_limit_s": 0},
        {"quota_s": -5},
        {"quota_warn_percent": 0},
        {"quota_warn_percent": 101},
        {"labels": ["no good"]},
        {"colour": "red"},
    ],
)
def test_what_no_group_can_have(fields: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        group_rows.change(Session(), Group(name="a", created_ms=0), fields)


async def test_names_of_groups(keeper: BooksKeeper) -> None:
    group = await keeper.add(" Research ", {})
    assert group.name == "Research"
    for taken in ("research", "Research"):
        with pytest.raises(Conflict):
            await keeper.add(taken, {})
    for bad in ("", " ", "a\tb", "x" * 65):
        with pytest.raises(BadInput):
            await keeper.add(bad, {})
    with pytest.raises(NotFound):
        await keeper.assign(1, 99)


async def test_a_quota_stops_a_group_until_it_is_raised(store: JobStore, keeper: BooksKeeper) -> None:
    """Counted over the whole group; what others used does not count."""
    group = await keeper.add("class", {"quota_s": 10, "quota_warn_percent": 50, "quota_period": "month"})
    for user in (1, 2):
        await keeper.assign(user, group.id)
    rung: list[int] = []
    told: list[list[int]] = []
    keeper.groups.on_change.append(lambda: rung.append(1))
    keeper.groups.on_quota.append(told.append)
    await ended(store, Spent(6000), 1)
    await ended(store, Spent(60_000), 3)
    await keeper.groups.reload()
    quota = keeper.groups.quota(2)
    assert quota is not None and (quota.used_s, quota.left_s, quota.near, quota.exhausted) == (6, 4, True, False)
    assert keeper.groups.blocked(1) is None and not rung
    await keeper.groups.reload()
    assert told == [[1, 2]], "once for each of its users"
    await ended(store, Spent(4000), 2)
    await keeper.groups.reload()
    assert "class has used its GPU time for this month" in (keeper.groups.blocked(1) or "")
    assert keeper.groups.blocked(3) is None and keeper.groups.quota(3) is None
    assert len(rung) == 1
    await keeper.change(group.id or 0, {"quota_s": 100, "quota_period": "day"})
    assert keeper.groups.blocked(1) is None and len(rung) == 2
    assert len(told) == 3, "near, used up, and renewed"


async def test_a_months_days_count_together(db: Database, store: JobStore) -> None:
    """Days before yesterday are summed once; what is booked late for yesterday still counts."""
    moment = 1_768_478_400_000  # 2026-01-15 12:00 UTC

    async def book(days_ago: int, seconds: int) -> None:
        job = await ended(store, Spent())

        def work(s: Session) -> None:
            entry = s.exec(select(LedgerEntry).where(LedgerEntry.job_seq == job.key)).one()
            entry.day, entry.gpu_ms = ledger.day_of(moment - days_ago * DAY_MS), seconds * 1000
            entry.group_name = "class"

        await db.write(work)

    used = Used()
    for days_ago, seconds in ((0, 1), (1, 10), (5, 100), (14, 1000), (15, 10_000)):
        await book(days_ago, seconds)
    await db.read(lambda s: used.read(s, moment))
    assert used.of(QuotaPeriod.DAY) == {"class": 1000}
    assert used.of(QuotaPeriod.MONTH) == {"class": 1_111_000}, "December is another month"
    await book(1, 20)
    await db.read(lambda s: used.read(s, moment))
    assert used.of(QuotaPeriod.MONTH) == {"class": 1_131_000}


async def backends(db: Database) -> None:
    def work(s: Session) -> None:
        for key, labels in ((1, ["room=3"]), (2, ["room=3", "fast"]), (3, [])):
            s.add(
                Backend(
                    id=key, name=f"gpu-{key}", url=f"http://{key}", source="registered", created_ms=0, labels=labels
                )
            )

    await db.write(work)


async def test_usage_adds_up(store: JobStore, keeper: BooksKeeper) -> None:
    group = await keeper.add("class", {})
    await keeper.assign(2, group.id)
    await ended(store, Spent(2000, 500, 1500, "gpu-1"), 1)
    await ended(store, Spent(1000, 0, 1000, "gpu-2"), 1, JobState.FAILED)
    await ended(store, Spent(9000, 0, 9000, "gpu-2"), 2)
    await store.submit(submission(saved(), 2))
    await store.cancel(2, None, ACTIVE)
    by_user = await keeper.sums(By.USER, ALWAYS)
    assert [(row.key, row.jobs, row.gpu_ms) for row in by_user] == [("2", 2, 9000), ("1", 2, 3000)]
    assert [(row.succeeded, row.failed, row.cancelled) for row in by_user] == [(1, 0, 1), (1, 1, 0)]
    assert by_user[1].load_ms == 500 and by_user[1].run_ms == 2500
    assert {row.key: row.gpu_ms for row in await keeper.sums(By.GROUP, ALWAYS)} == {"class": 9000, "": 3000}
    assert {row.key: row.jobs for row in await keeper.sums(By.BACKEND, ALWAYS)} == {"gpu-1": 1, "gpu-2": 2, "": 1}
    assert [row.gpu_ms for row in await keeper.sums(By.DAY, Span(ALWAYS.first, ALWAYS.last, 1))] == [3000]
    assert await keeper.sums(By.DAY, Span(20000101, 20000102)) == []
    assert usage.total(by_user).gpu_ms == 12_000 and usage.total([]).jobs == 0
    page = await keeper.entries(ALWAYS, 0)
    assert [entry.user_id for entry in page] == [1, 1, 2, 2]
    assert [entry.id for entry in await keeper.entries(ALWAYS, page[1].id or 0)] == [page[2].id, page[3].id]


async def test_old_rows_are_taken_out(db: Database, store: JobStore, keeper: BooksKeeper, tmp_path: Path) -> None:
    """By age for everybody, also who comes no more; by number for who had more before the limit was lowered."""
    await backends(db)
    await keeper.add("class", {})
    old, new = await ended(store, Spent(), 1), await ended(store, Spent(), 2)
    more = [await ended(store, Spent(), 3) for _ in range(4)]
    waiting = await store.submit(submission(saved(), 1))

    def age(s: Session) -> None:
        now = now_ms()
        s.get_one(Job, old.key).ended_ms = now - 11 * DAY_MS
        s.get_one(Job, waiting.key).created_ms = now - 500 * DAY_MS
        entry = s.exec(select(LedgerEntry).where(LedgerEntry.job_seq == old.key)).one()
        entry.day = ledger.day_of(now - 401 * DAY_MS)
        s.add(Reservation(group_id=1, backends=[1], labels=[], begin_ms=0, end_ms=now - 2 * DAY_MS))
        s.add(Reservation(group_id=1, backends=[1], labels=[], begin_ms=0, end_ms=now + DAY_MS))

    await db.write(age)
    await Upkeep(db, Settings(data_dir=tmp_path, history_limit=3)).once()
    assert await db.read(lambda s: s.get(Job, old.key)) is not None, "history is kept for ever unless a setting says so"
    await Upkeep(db, Settings(data_dir=tmp_path, history_days=10)).once()
    kept = set(await db.read(lambda s: s.exec(select(Job.seq)).all()))
    assert kept == {new.key, waiting.key, *(job.key for job in more[1:])}
    assert {entry.job_seq for entry in await booked(db)} == {new.key, *(job.key for job in more)}
    assert len(await db.read(reservations.everything)) == 1
