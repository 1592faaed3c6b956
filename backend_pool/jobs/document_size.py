"""How much of the database one user's jobs take. Parts of the job store's transactions; knows no limits."""

from sqlalchemy import Text, cast, func, inspect, update
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import Select

from backend_pool.job_state import ACTIVE
from backend_pool.model import Job, JobDocument

DOCUMENT_PARTS = tuple(column for column in inspect(JobDocument).columns if column.key != "seq")


def held_by(user_id: int) -> Select[int, int]:
    """How many active jobs a user has, and the size of their documents."""
    size = func.coalesce(func.sum(Job.document_size), 0)
    return select(func.count(), size).where(Job.user_id == user_id, col(Job.state).in_(ACTIVE))


def measure(s: Session, job: Job) -> None:
    """Note the size of a job's document as the database holds it."""
    s.flush()
    size = sum(
        (func.length(cast(part, Text)) for part in DOCUMENT_PARTS[1:]), func.length(cast(DOCUMENT_PARTS[0], Text))
    )
    of_job = select(size).where(JobDocument.seq == job.key).scalar_subquery()
    s.exec(
        update(Job).where(col(Job.seq) == job.key).values(document_size=of_job),
        execution_options={"synchronize_session": False},
    )
