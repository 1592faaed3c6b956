"""Changes of a job's row, each with its line in the trail: `[ms, state, why, backend, attempt]`. No I/O.

A row changes inside a transaction of `store` or `held` alone.
"""

from backend_pool.books.ledger import Spent
from backend_pool.job_state import JobState, check
from backend_pool.model import Job
from proxy.base.clock import now_ms
from proxy.base.names import new_id

TRAIL_LENGTH = 24


def change(job: Job, target: JobState, why: str) -> None:
    """Into another state; raises IllegalTransition."""
    check(job.state, target, job.trail)
    note(job, target, why)


def note(job: Job, state: JobState, why: str) -> None:
    """The state and its line, unchecked."""
    job.state = state
    entry = [now_ms(), state.value, why, job.backend_id, job.attempt]
    job.trail = [*job.trail[1 - TRAIL_LENGTH :], entry]


def cost(job: Job, spent: Spent | None) -> None:
    """What it took of its backend."""
    if spent is not None:
        job.load_ms, job.gpu_ms = spent.load_ms, spent.gpu_ms


def name_upstream(job: Job) -> None:
    """Fresh ids for an attempt, and a fence against whoever held the job before."""
    job.epoch += 1
    job.upstream_id, job.upstream_client = new_id(), new_id().replace("-", "")


def put_back(
    job: Job, why: str, *, counts: bool, avoid: int | None, vram_mb: int | None, gpu_ms: int | None = None
) -> None:
    """Into the queue, at its old place; `gpu_ms` as in `requeue`."""
    if gpu_ms is None:
        gpu_ms = 0 if job.state is JobState.COLLECTING else job.gpu_ms
    change(job, JobState.QUEUED, why)
    _forget_attempt(job)
    job.gpu_ms = gpu_ms
    job.epoch += 1
    job.backend_id = job.upstream_id = job.upstream_client = job.assigned_ms = None
    job.attempt -= not counts
    if avoid is not None and avoid not in job.avoid:
        job.avoid = [*job.avoid, avoid]
    job.vram_mb = max(job.vram_mb, vram_mb or 0)
    job.freed = False


def begin_again(job: Job, why: str, gpu_ms: int) -> None:
    """Another attempt where it is."""
    if job.state is JobState.ASSIGNED:  # too short to be written as running
        change(job, JobState.RUNNING, "started")
    _forget_attempt(job)
    job.gpu_ms = gpu_ms
    name_upstream(job)
    job.attempt += 1
    job.freed = True
    change(job, JobState.ASSIGNED, why)


def _forget_attempt(job: Job) -> None:
    job.started_ms = job.rendered_ms = None
    job.load_ms = 0
