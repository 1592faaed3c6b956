"""What is kept of finished jobs: how many of each user, how much of them, and for how long.

Rows alone are taken out: the job, its workflow and its result. Users' files stay, and so does the ledger's entry.
"""

from collections.abc import Sequence

from sqlmodel import Session, col, delete, func, or_, select

from backend_pool.job_state import FINAL
from backend_pool.jobs.document_size import held_by
from backend_pool.model import Job, JobDocument

BATCH = 200
"""Jobs taken out in one transaction: others want to write, too."""


def remove_jobs(session: Session, seqs: Sequence[int]) -> None:
    """Take out these jobs with their documents."""
    for start in range(0, len(seqs), 500):
        chunk = seqs[start : start + 500]
        session.exec(delete(JobDocument).where(col(JobDocument.seq).in_(chunk)))
        session.exec(delete(Job).where(col(Job.seq).in_(chunk)))


def prune_user(session: Session, user_id: int, limit: int, most: int) -> None:
    """Keep the newest `limit` finished jobs of a user, fewer where documents would hold more than `most` characters."""
    query = select(col(Job.seq), Job.document_size).where(Job.user_id == user_id, col(Job.state).in_(FINAL))
    _, size = session.exec(held_by(user_id)).one()
    out = []
    for place, (seq, own) in enumerate(session.exec(query.order_by(col(Job.seq).desc())).all()):
        size += own
        # The newest stays whatever it holds: its submitter has yet to read it.
        if place >= limit or (place and size > most):
            out.append(seq)
    remove_jobs(session, [seq for seq in out if seq is not None])


def over(session: Session, limit: int, most: int) -> list[int]:
    """Users who have more than `limit` finished jobs, or documents of more than `most` characters."""
    query = select(Job.user_id).where(col(Job.state).in_(FINAL)).group_by(col(Job.user_id))
    return list(session.exec(query.having(or_(func.count() > limit, func.sum(Job.document_size) > most))).all())


def ended_before(session: Session, moment_ms: int) -> list[int]:
    """A batch of the finished jobs of anybody that ended before then, the oldest first."""
    query = select(Job.seq).where(col(Job.state).in_(FINAL), col(Job.ended_ms) < moment_ms)
    return [seq for seq in session.exec(query.order_by(col(Job.seq)).limit(BATCH)).all() if seq is not None]
