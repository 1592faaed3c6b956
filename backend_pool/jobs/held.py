"""One job's row and document, changed by the owner that holds it: the only compare-and-set on a carried job.

A change names the epoch that its owner holds; an owner that lost the job meanwhile gets `Fenced`. A change that was
done, but whose answer was lost, is found at the next try and not done again.
"""

from collections.abc import Callable
from typing import Any

from sqlmodel import Session

from backend_pool.comfy.result import Result
from backend_pool.job_state import FINAL, JobState
from backend_pool.jobs.document_size import measure
from backend_pool.jobs.lost_answers import LostAnswers
from backend_pool.model import Job, JobDocument, JsonDict
from proxy.base.database import Database
from proxy.base.errors import Unavailable


class Fenced(Exception):
    """This owner no longer holds the job: it was requeued, finished or, when it is `gone`, removed by someone else."""

    def __init__(self, message: str, *, gone: bool = False) -> None:
        super().__init__(message)
        self.gone = gone


class HeldJobs:
    """Changes of jobs by those who hold them."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lost = LostAnswers()

    async def change(
        self,
        job: Job,
        edit: Callable[[Session, Job], None],
        result: Result | None = None,
        files: list[JsonDict] | None = None,
        *,
        to: JobState | None = None,
    ) -> Job:
        """`to` is the state that `edit` brings it into. Raises Fenced, DatabaseUnavailable."""
        line: list[Any] = []

        def work(s: Session) -> Job:
            row = s.get(Job, job.key, with_for_update=True)  # PostgreSQL; SQLite has one writer anyway
            if row is not None and to is not None and self._lost.done(row, job, to):
                return row
            row = check_held(row, job)
            edit(s, row)
            if to is not None:
                line[:] = row.trail[-1]
            if result is not None or files is not None:
                document = s.get_one(JobDocument, job.key)
                if result is not None:
                    document.outputs, document.meta, document.messages = result.outputs, result.meta, result.messages
                if files is not None:
                    document.files = files
                measure(s, row)
            return row

        try:
            held = await self._db.write(work)
        except Unavailable:
            if to is not None and line:
                self._lost.note(job.key, to, line)
            raise
        except Exception:
            self._lost.forget(job.key)
            raise
        self._lost.forget(job.key)
        return held


def check_held(row: Job | None, job: Job) -> Job:
    """The row, if that owner still holds the job. Raises Fenced."""
    if row is None or row.epoch != job.epoch or row.state in FINAL:
        raise Fenced(f"job {job.key} is no longer held at epoch {job.epoch}", gone=row is None)
    return row
