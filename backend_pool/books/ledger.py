"""The ledger: one entry per ended job, written in the transaction that ends it, whatever its end.

A job that was cancelled while it waited is entered too, with nothing spent: who looks at waits and ends wants it.
Entries name the user by number and the group by name, so they outlive both. Nothing else writes the table.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlmodel import Session, col, delete, select

from backend_pool.books.tables import Group, GroupMember, LedgerEntry
from backend_pool.model import Backend, Job

PRUNED_AT_ONCE = 5000


@dataclass(frozen=True)
class Spent:
    """What an ended job took of a backend. `gpu_ms` is charged; the others tell about the last attempt."""

    gpu_ms: int = 0
    load_ms: int = 0
    run_ms: int = 0
    backend: str = ""
    device: str = ""


def spent_by(session: Session, job: Job) -> Spent:
    """What the row of a job that just ended says, for want of anything better: from its beginning to its end."""
    if job.backend_id is None or job.started_ms is None:
        return Spent(gpu_ms=job.gpu_ms, load_ms=job.load_ms)
    backend = session.get(Backend, job.backend_id)
    run_ms = max(0, (job.rendered_ms or job.ended_ms or job.started_ms) - job.started_ms)
    return Spent(job.gpu_ms or run_ms, job.load_ms, run_ms, backend.name if backend else "")


def enter(session: Session, job: Job, spent: Spent) -> None:
    """Book a job that ended in this transaction; a job is booked once, however often this is called."""
    if session.exec(select(LedgerEntry.id).where(LedgerEntry.job_seq == job.key)).first() is None:
        session.add(_entry(job, spent, _group_of(session, job.user_id)))


def enter_cancelled(session: Session, jobs: Sequence[Job]) -> None:
    """Book jobs that were cancelled while they waited, with nothing spent: a queue of thousands in one go."""
    groups = {user_id: _group_of(session, user_id) for user_id in {job.user_id for job in jobs}}
    session.add_all(_entry(job, Spent(), groups[job.user_id]) for job in jobs)


def booked(session: Session, seqs: Collection[int]) -> dict[int, int]:
    """What these jobs were charged, by `seq`; those that are not booked are left out."""
    query = select(LedgerEntry.job_seq, LedgerEntry.gpu_ms).where(col(LedgerEntry.job_seq).in_(seqs))
    return dict(session.exec(query).all())


def rebook(session: Session, gpu_ms: Mapping[int, int]) -> None:
    """What jobs that are booked are charged in all, by `seq`: their backends did not let go of them at their end. The
    same again after a lost answer changes nothing."""
    for entry in session.exec(select(LedgerEntry).where(col(LedgerEntry.job_seq).in_(gpu_ms))).all():
        entry.gpu_ms = gpu_ms[entry.job_seq]


def day_of(moment_ms: int) -> int:
    """The UTC day of a moment, as 20260131."""
    return int(datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y%m%d"))


def prune(session: Session, before_ms: int) -> int:
    """Take out a batch of the entries that ended before then; returns how many, 0 when none is left."""
    old = select(col(LedgerEntry.id)).where(LedgerEntry.day < day_of(before_ms)).limit(PRUNED_AT_ONCE)
    return session.exec(delete(LedgerEntry).where(col(LedgerEntry.id).in_(old))).rowcount


def _entry(job: Job, spent: Spent, group: str) -> LedgerEntry:
    assert job.ended_ms is not None
    return LedgerEntry(
        job_seq=job.key,
        prompt_id=job.prompt_id,
        user_id=job.user_id,
        group_name=group,
        lane=job.lane,
        backend=spent.backend,
        device=spent.device,
        result=job.state,
        attempts=job.attempt,
        created_ms=job.created_ms,
        ended_ms=job.ended_ms,
        day=day_of(job.ended_ms),
        wait_ms=max(0, (job.assigned_ms or job.ended_ms) - job.created_ms),
        load_ms=spent.load_ms,
        run_ms=spent.run_ms,
        gpu_ms=spent.gpu_ms,
    )


def _group_of(session: Session, user_id: int) -> str:
    query = select(Group.name).join(GroupMember, col(GroupMember.group_id) == col(Group.id))
    return session.exec(query.where(GroupMember.user_id == user_id)).first() or ""
