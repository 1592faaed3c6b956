"""Jobs in the database. Every change of state is one compare-and-set here; nothing else writes the jobs table.

A change names the epoch its owner holds: an owner that lost the job meanwhile gets `Fenced` and must stop at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, delete, select

from backend_pool.job_state import ACTIVE, FINAL, ON_BACKEND, JobState, check
from backend_pool.model import Job, JobDocument, JsonDict, PromptCounter
from proxy.base.clock import now_ms
from proxy.base.database import Database
from proxy.base.errors import Conflict, TooManyRequests
from proxy.base.names import new_id

TRAIL_LENGTH = 24


class Fenced(Exception):
    """This owner no longer holds the job: it was requeued, finished or removed by someone else."""


@dataclass(frozen=True)
class Submission:
    """A validated prompt on its way into the queue."""

    user_id: int
    prompt_id: str
    client_id: str | None
    prompt: JsonDict
    extra_data: JsonDict
    targets: list[str]
    number: float | None = None
    front: bool = False


@dataclass(frozen=True)
class Result:
    """What a finished job leaves: ComfyUI's history entry without the prompt."""

    outputs: JsonDict = field(default_factory=dict)
    meta: JsonDict = field(default_factory=dict)
    messages: list[Any] = field(default_factory=list)


class JobStore:
    """All reads and writes of jobs."""

    def __init__(self, db: Database, queue_limit: int, history_limit: int) -> None:
        self._db = db
        self._queue_limit = queue_limit
        self._history_limit = history_limit

    # -- the submitting user --------------------------------------------------------------------------------------

    async def submit(self, new: Submission) -> Job:
        """Store a prompt; on return it survives a power cut. Raises Conflict for an active id, TooManyRequests."""
        return await self._db.write(lambda s: self._insert(s, new))

    def _insert(self, s: Session, new: Submission) -> Job:
        waiting = s.exec(select(func.count()).where(Job.user_id == new.user_id, col(Job.state).in_(ACTIVE))).one()
        if waiting >= self._queue_limit:
            raise TooManyRequests(f"You have {waiting} jobs waiting, the most allowed. Cancel some or wait.")
        earlier = s.exec(select(Job).where(Job.user_id == new.user_id, Job.prompt_id == new.prompt_id)).first()
        if earlier is not None:
            if earlier.state not in FINAL:
                raise Conflict(f"A prompt with the id {new.prompt_id} is queued or running already.")
            _delete(s, [earlier.key])  # as in ComfyUI, a finished prompt of that id gives way
        job = Job(
            prompt_id=new.prompt_id,
            user_id=new.user_id,
            client_id=new.client_id,
            number=_number(s, new),
            workflow_id=workflow_id(new.extra_data),
            created_ms=now_ms(),
        )
        _note(job, JobState.QUEUED, "submitted")
        s.add(job)
        s.flush()
        extra = {**new.extra_data, "create_time": job.created_ms}
        s.add(JobDocument(seq=job.key, prompt=new.prompt, extra_data=extra, targets=new.targets))
        return job

    async def forget(self, user_id: int, prompt_ids: Sequence[str] | None) -> None:
        """Remove finished jobs from the user's history: those named, or all."""

        def work(s: Session) -> None:
            query = select(Job.seq).where(Job.user_id == user_id, col(Job.state).in_(FINAL))
            if prompt_ids is not None:
                query = query.where(col(Job.prompt_id).in_(prompt_ids))
            _delete(s, [seq for seq in s.exec(query).all() if seq is not None])

        await self._db.write(work)

    async def cancel(
        self, user_id: int | None, prompt_ids: Sequence[str] | None, states: frozenset[JobState]
    ) -> list[Job]:
        """Ask for the end of jobs in `states`; waiting ones end now, others carry the flag. Returns those touched.

        `user_id` None means anybody's and is for administrators alone.
        """

        def work(s: Session) -> list[Job]:
            query = select(Job).where(col(Job.state).in_(states & ACTIVE))
            if user_id is not None:
                query = query.where(Job.user_id == user_id)
            if prompt_ids is not None:
                query = query.where(col(Job.prompt_id).in_(prompt_ids))
            jobs = list(s.exec(query).all())
            for job in jobs:
                job.cancel_requested = True
                if job.state is JobState.QUEUED:
                    _change(job, JobState.CANCELLED, "cancelled while waiting")
                    job.ended_ms = now_ms()
            return jobs

        return await self._db.write(work)

    # -- the dispatcher and the runners ---------------------------------------------------------------------------

    async def waiting(self) -> list[Job]:
        """Every queued job, in ComfyUI's order inside a user."""
        query = select(Job).where(Job.state == JobState.QUEUED).order_by(col(Job.number), col(Job.seq))
        return await self._db.read(lambda s: list(s.exec(query).all()))

    async def heads(self) -> list[Job]:
        """Each user's next job, for users who have none on a backend."""
        rank = func.row_number().over(partition_by=col(Job.user_id), order_by=[col(Job.number), col(Job.seq)])
        ranked = select(col(Job.seq), rank.label("rank")).where(Job.state == JobState.QUEUED).subquery()
        busy = select(Job.user_id).where(col(Job.state).in_(ON_BACKEND))
        query = (
            select(Job)
            .join(ranked, ranked.c.seq == col(Job.seq))
            .where(ranked.c.rank == 1, col(Job.user_id).not_in(busy))
            .order_by(col(Job.seq))
        )
        return await self._db.read(lambda s: list(s.exec(query).all()))

    async def users_with_jobs(self) -> set[int]:
        """Users who wait for something or have it running."""
        query = select(Job.user_id).where(col(Job.state).in_(ACTIVE)).distinct()
        return await self._db.read(lambda s: set(s.exec(query).all()))

    async def on_backends(self) -> list[Job]:
        """Every job that some runner carries or carried before a crash."""
        query = select(Job).where(col(Job.state).in_(ON_BACKEND)).order_by(col(Job.seq))
        return await self._db.read(lambda s: list(s.exec(query).all()))

    async def document(self, seq: int) -> JobDocument:
        """The job's JSON; raises Fenced when the job is gone."""
        found = await self._db.read(lambda s: s.get(JobDocument, seq))
        if found is None:
            raise Fenced(f"job {seq} is gone")
        return found

    async def cancel_requested(self, seq: int) -> bool:
        """Whether the job's user wants it to end."""
        query = select(Job.cancel_requested).where(Job.seq == seq)
        return bool(await self._db.read(lambda s: s.exec(query).first()))

    async def assign(self, seq: int, backend_id: int) -> Job | None:
        """Give a queued job to a backend under fresh upstream ids; None when it is no longer waiting."""

        def work(s: Session) -> Job | None:
            job = s.get(Job, seq)
            if job is None or job.state is not JobState.QUEUED:
                return None
            job.epoch += 1
            job.attempt += 1
            job.backend_id = backend_id
            job.upstream_id, job.upstream_client = new_id(), new_id().replace("-", "")
            job.assigned_ms = now_ms()
            _change(job, JobState.ASSIGNED, f"backend {backend_id}, attempt {job.attempt}")
            return job

        return await self._db.write(work)

    async def running(self, job: Job) -> Job:
        """The backend began it."""

        def begin(row: Job) -> None:
            row.started_ms = now_ms()
            _change(row, JobState.RUNNING, "started")

        return await self._held(job, begin)

    async def collecting(self, job: Job, result: Result) -> Job:
        """The backend ended it; its result is kept so that fetching files can be repeated after a crash."""

        def keep(row: Job) -> None:
            row.started_ms = row.started_ms or now_ms()
            _change(row, JobState.COLLECTING, "backend done")

        return await self._held(job, keep, result)

    async def finish(self, job: Job, state: JobState, result: Result, why: str) -> Job:
        """The job's final state and history entry, in one transaction."""

        def end(row: Job) -> None:
            row.ended_ms = now_ms()
            row.started_ms = row.started_ms or row.ended_ms
            row.outputs_count = count_outputs(result.outputs)
            _change(row, state, why)

        return await self._held(job, end, result)

    async def requeue(self, job: Job, why: str) -> Job:
        """Back to its old place in the queue; `number` and `seq` have not changed."""

        def back(row: Job) -> None:
            row.backend_id = row.upstream_id = row.upstream_client = row.started_ms = row.assigned_ms = None
            row.epoch += 1
            _change(row, JobState.QUEUED, why)

        return await self._held(job, back, Result(), files=[])

    async def note_files(self, job: Job, files: list[JsonDict]) -> None:
        """Record where files of this job are about to be, so that a crash never stores one twice."""
        await self._held(job, lambda _row: None, files=files)

    async def prune(self, user_id: int) -> None:
        """Keep the newest `history_limit` finished jobs of a user."""

        def work(s: Session) -> None:
            query = (
                select(Job.seq)
                .where(Job.user_id == user_id, col(Job.state).in_(FINAL))
                .order_by(col(Job.seq).desc())
                .offset(self._history_limit)
            )
            _delete(s, [seq for seq in s.exec(query).all() if seq is not None])

        await self._db.write(work)

    async def _held(
        self,
        job: Job,
        change: Callable[[Job], None],
        result: Result | None = None,
        files: list[JsonDict] | None = None,
    ) -> Job:
        def work(s: Session) -> Job:
            row = s.get(Job, job.key)
            if row is None or row.epoch != job.epoch or row.state in FINAL:
                raise Fenced(f"job {job.key} is no longer held at epoch {job.epoch}")
            change(row)
            if result is not None or files is not None:
                document = s.get_one(JobDocument, job.key)
                if result is not None:
                    document.outputs, document.meta, document.messages = result.outputs, result.meta, result.messages
                if files is not None:
                    document.files = files
            return row

        return await self._db.write(work)


def count_outputs(outputs: JsonDict) -> int:
    """How many files a job made, as ComfyUI's jobs API counts them: entries of the lists in each node's ui output."""
    return sum(
        len(items) for ui in outputs.values() for key, items in ui.items() if key != "animated" and _files(items)
    )


def _files(items: object) -> bool:
    return isinstance(items, list) and any(isinstance(item, dict) and "filename" in item for item in items)


def workflow_id(extra_data: JsonDict) -> str | None:
    """The id of the workflow a prompt came from; extra_data is the caller's and may have any shape."""
    found: Any = extra_data
    for key in ("extra_pnginfo", "workflow", "id"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None


def _number(s: Session, new: Submission) -> float:
    if new.number is not None:
        return new.number
    counter = s.get(PromptCounter, new.user_id) or PromptCounter(user_id=new.user_id)
    counter.last += 1
    s.add(counter)
    return float(-counter.last if new.front else counter.last)


def _change(job: Job, target: JobState, why: str) -> None:
    check(job.state, target, job.trail)
    _note(job, target, why)


def _note(job: Job, state: JobState, why: str) -> None:
    job.state = state
    job.trail = [*job.trail[1 - TRAIL_LENGTH :], [now_ms(), state.value, why]]


def _delete(s: Session, seqs: Sequence[int]) -> None:
    for start in range(0, len(seqs), 500):
        chunk = seqs[start : start + 500]
        s.exec(delete(JobDocument).where(col(JobDocument.seq).in_(chunk)))
        s.exec(delete(Job).where(col(Job.seq).in_(chunk)))


__all__ = ["Fenced", "JobStore", "Result", "Submission", "count_outputs"]
