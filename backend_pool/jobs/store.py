"""Jobs in the database: every change of state is one transaction here.

What a job's owner changes is a compare-and-set (`held`): an owner that lost the job meanwhile gets `Fenced` and must
stop at once. Beside this the lease raises epochs, and the upkeep takes out old jobs.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from sqlmodel import Session, col, select

from backend_pool.books.ledger import Spent, booked, enter, enter_cancelled, rebook, spent_by
from backend_pool.comfy.result import Result, count_outputs
from backend_pool.job_state import ACTIVE, FINAL, ON_BACKEND, JobState
from backend_pool.jobs.document_size import held_by, measure
from backend_pool.jobs.held import Fenced, HeldJobs, check_held
from backend_pool.jobs.history import prune_user, remove_jobs
from backend_pool.jobs.queue_reads import QueueReads, put_virtual_times
from backend_pool.jobs.row import begin_again, change, cost, name_upstream, note, put_back
from backend_pool.jobs.submission import Submission, workflow_id
from backend_pool.model import Job, JobDocument, JsonDict, PromptCounter
from proxy.base.clock import now_ms
from proxy.base.database import Database
from proxy.base.errors import Conflict, TooManyRequests

HISTORY_MB = 256


class JobStore:
    """All reads and writes of jobs."""

    def __init__(self, db: Database, queue_limit: int, history_limit: int, history_mb: int = HISTORY_MB) -> None:
        self._db = db
        self.queue = QueueReads(db)
        self.virtual_s: Callable[[Job], float | None] = lambda _job: None
        """The dispatcher's: the virtual time of a job's user, to be stored with its end."""
        self.charged: Callable[[Job, int | None], None] = lambda _job, _gpu_ms: None
        """The groups': hears what a job is charged before that is stored; None when it is not charged after all."""
        self.may_place: Callable[[Session], None] = lambda _s: None
        """The lease's: raises in a transaction of a server that may place nothing any more."""
        self._held = HeldJobs(db)
        self._queue_limit = queue_limit
        self._history_limit = history_limit
        self._history_size = history_mb << 20

    # -- the submitting user --------------------------------------------------------------------------------------

    async def submit(self, new: Submission) -> Job:
        """Store a prompt; on return it survives a power cut. Raises Conflict for an active id, TooManyRequests."""
        return await self._db.write(lambda s: self._insert(s, new))

    def _insert(self, s: Session, new: Submission) -> Job:
        waiting, size = s.exec(held_by(new.user_id)).one()
        if waiting >= (self._queue_limit if new.queue_limit is None else new.queue_limit):
            raise TooManyRequests(f"Your queue is full: {waiting} jobs, the most allowed. Cancel some or wait.")
        if size >= self._history_size:
            raise TooManyRequests(
                f"Your waiting jobs hold {size >> 20} MB of workflows, the most allowed. Cancel some or wait."
            )
        earlier = s.exec(select(Job).where(Job.user_id == new.user_id, Job.prompt_id == new.prompt_id)).first()
        if earlier is not None:
            if earlier.state not in FINAL:
                raise Conflict(f"A prompt with the id {new.prompt_id} is queued or running already.")
            remove_jobs(s, [earlier.key])  # as in ComfyUI, a finished prompt of that id gives way
        job = Job(
            prompt_id=new.prompt_id,
            user_id=new.user_id,
            client_id=new.client_id,
            number=_number(s, new),
            workflow_id=workflow_id(new.extra_data),
            lane=new.lane,
            priority=new.priority,
            labels=new.labels,
            vram_mb=new.vram_mb,
            created_ms=now_ms(),
        )
        note(job, JobState.QUEUED, "submitted")
        s.add(job)
        s.flush()
        extra = {**new.extra_data, "create_time": job.created_ms}
        document = JobDocument(seq=job.key, prompt=new.prompt, extra_data=extra, targets=new.targets)
        document.withheld = new.withheld
        s.add(document)
        measure(s, job)
        return job

    async def forget(self, user_id: int, prompt_ids: Sequence[str] | None) -> None:
        """Remove finished jobs from the user's history: those named, or all."""

        def work(s: Session) -> None:
            query = select(Job.seq).where(Job.user_id == user_id, col(Job.state).in_(FINAL))
            if prompt_ids is not None:
                query = query.where(col(Job.prompt_id).in_(prompt_ids))
            remove_jobs(s, [seq for seq in s.exec(query).all() if seq is not None])

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
            jobs = list(s.exec(query.with_for_update()).all())
            waiting = [job for job in jobs if job.state is JobState.QUEUED]
            for job in jobs:
                job.cancel_requested = True
            for job in waiting:
                change(job, JobState.CANCELLED, "cancelled while waiting")
                job.ended_ms = now_ms()
            enter_cancelled(s, waiting)
            return jobs

        return await self._db.write(work)

    # -- the dispatcher and the runners ---------------------------------------------------------------------------

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
            raise Fenced(f"job {seq} is gone", gone=True)
        return found

    async def assign(self, seq: int, backend_id: int) -> Job | None:
        """Give a queued job to a backend under fresh upstream ids; None when it is no longer waiting."""

        def work(s: Session) -> Job | None:
            self.may_place(s)
            job = s.get(Job, seq, with_for_update=True)
            if job is None or job.state is not JobState.QUEUED:
                return None
            job.attempt += 1
            job.backend_id = backend_id
            name_upstream(job)
            job.assigned_ms = now_ms()
            change(job, JobState.ASSIGNED, "placed")
            return job

        return await self._db.write(work)

    async def running(self, job: Job, started_ms: int | None = None) -> Job:
        """The backend began it, now or at `started_ms`."""

        def begin(_s: Session, row: Job) -> None:
            row.started_ms = started_ms or now_ms()
            change(row, JobState.RUNNING, "started")

        return await self._held.change(job, begin, to=JobState.RUNNING)

    async def collecting(
        self, job: Job, result: Result, files: list[JsonDict] | None = None, spent: Spent | None = None
    ) -> Job:
        """The backend ended it; its result is kept so that fetching files can be repeated after a crash."""

        def keep(_s: Session, row: Job) -> None:
            row.rendered_ms = now_ms()
            row.started_ms = row.started_ms or row.rendered_ms - (spent.run_ms if spent else 0)
            cost(row, spent)
            change(row, JobState.COLLECTING, "backend done")

        return await self._held.change(job, keep, result, files, to=JobState.COLLECTING)

    async def finish(
        self,
        job: Job,
        state: JobState,
        result: Result,
        why: str,
        *,
        started_ms: int | None = None,
        rendered_ms: int | None = None,
        spent: Spent | None = None,
    ) -> Job:
        """Final state, history entry and ledger entry in one transaction; its list of files has served its turn."""

        virtual_s = self.virtual_s(job)

        def end(s: Session, row: Job) -> None:
            row.ended_ms = now_ms()
            row.started_ms = row.started_ms or started_ms or row.ended_ms
            row.rendered_ms = row.rendered_ms or rendered_ms
            row.outputs_count = count_outputs(result.outputs)
            cost(row, spent)
            change(row, state, why)
            enter(s, row, spent or spent_by(s, row))
            put_virtual_times(s, [] if virtual_s is None else [(row.user_id, virtual_s)])

        self.charged(job, spent.gpu_ms if spent else job.gpu_ms)
        try:
            return await self._held.change(job, end, result, files=[], to=state)
        except Fenced:
            self.charged(job, None)
            raise

    async def requeue(
        self,
        job: Job,
        why: str,
        *,
        counts: bool = True,
        files: list[JsonDict] | None = None,
        avoid: int | None = None,
        vram_mb: int | None = None,
        gpu_ms: int | None = None,
    ) -> Job:
        """Back to its old place in the queue; `number` and `seq` have not changed. `avoid`, `vram_mb` as in the row.
        `gpu_ms` is what is charged so far; None leaves out this attempt.

        `counts` False takes the attempt back: no backend began it. `files` are those of this attempt that are still
        on disk; None leaves the noted ones, for the next attempt to remove.
        """

        def put(_s: Session, row: Job) -> None:
            put_back(row, why, counts=counts, avoid=avoid, vram_mb=vram_mb, gpu_ms=gpu_ms)

        held = await self._held.change(job, put, Result(), files, to=JobState.QUEUED)
        self.charged(job, gpu_ms)
        return held

    async def again(self, job: Job, why: str, files: list[JsonDict], gpu_ms: int) -> Job:
        """Another attempt at the same backend, which is freed for it, under fresh upstream ids. `gpu_ms` is what is
        charged so far."""

        def begin(_s: Session, row: Job) -> None:
            begin_again(row, why, gpu_ms)

        return await self._held.change(job, begin, Result(), files, to=JobState.ASSIGNED)

    async def booked(self, seqs: Collection[int]) -> dict[int, int]:
        """What ended jobs were charged, by `seq`. Raises Unavailable."""
        return await self._db.read(lambda s: booked(s, seqs))

    async def rebook(self, gpu_ms: Mapping[int, int]) -> None:
        """What ended jobs are charged after all, by `seq`. Raises Unavailable."""
        await self._db.write(lambda s: rebook(s, gpu_ms))

    async def check_held(self, job: Job) -> None:
        """Raise Fenced when somebody else has the job now."""
        row = await self._db.read(lambda s: s.get(Job, job.key))
        check_held(row, job)

    async def note_files(self, job: Job, files: list[JsonDict]) -> None:
        """Record where files of this job are about to be, so that a crash never stores one twice."""
        await self._held.change(job, lambda _s, _row: None, files=files)

    async def prune(self, user_id: int) -> None:
        """Keep the newest `history_limit` finished jobs of a user, fewer where documents would hold too much."""
        await self._db.write(lambda s: prune_user(s, user_id, self._history_limit, self._history_size))


def _number(s: Session, new: Submission) -> float:
    if new.number is not None:
        return new.number
    counter = s.get(PromptCounter, new.user_id) or PromptCounter(user_id=new.user_id)
    counter.last += 1
    s.add(counter)
    return float(-counter.last if new.front else counter.last)
