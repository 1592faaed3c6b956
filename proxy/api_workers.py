"""What only backends with the worker pack can do: the log of one's own job; for administrators, free and restart."""

from pydantic import BaseModel, Field

from backend_pool.errors import BackendBusy, BackendError, FileGone
from backend_pool.job_state import ON_BACKEND
from backend_pool.pool import Member
from backend_pool.worker_client import WorkerClient
from proxy.api_models import Done
from proxy.api_operations import Call
from proxy.base.errors import Conflict, NotFound, Unavailable
from proxy.base.logs import events

log = events(__name__)


class LogLine(BaseModel):
    """A line as ComfyUI keeps it."""

    t: str = Field(description="When, by the backend's clock.")
    m: str


class JobLog(BaseModel):
    """What the backend wrote to its terminal while a job ran."""

    entries: list[LogLine]


async def job_log(call: Call) -> BaseModel:
    """The log of one's own job while a worker has it. Nothing else runs there meanwhile, so the lines are its own."""
    job = await call.deps.views.one(call.id("id"), call.who.user_id)
    member = call.deps.pool.member(job.backend_id) if job.state in ON_BACKEND else None
    if member is None or member.worker is None or job.upstream_id is None:
        raise NotFound("There is no log: the job is on no backend that has the worker pack.")
    try:
        lines = await WorkerClient(member.client).log(job.upstream_id)
    except FileGone:
        lines = []
    except BackendError as error:
        raise Unavailable(f"The backend does not answer: {error}") from error
    return JobLog(entries=[LogLine(t=str(line.get("t")), m=str(line.get("m"))) for line in lines])


async def free_backend(call: Call) -> BaseModel:
    """Unload models, forget results."""
    member = _worker(call)
    try:
        await WorkerClient(member.client).free()
    except BackendError as error:
        raise Unavailable(f"The backend does not answer: {error}") from error
    log.info("backend freed", backend=member.row.name, by=call.who.name)
    return Done()


async def restart_backend(call: Call) -> BaseModel:
    """Begin anew in place."""
    member = _worker(call)
    if member.job is not None:
        raise Conflict("It carries a job. Drain it first, or cancel the job.")
    try:
        await WorkerClient(member.client).restart()
    except BackendBusy as error:
        raise Conflict("A prompt runs there. Drain it first.") from error
    except BackendError as error:
        raise Unavailable(f"The backend does not answer: {error}") from error
    call.deps.pool.doubt(member, "it was told to restart")
    log.info("backend restarted", backend=member.row.name, by=call.who.name)
    return Done()


def _worker(call: Call) -> Member:
    member = call.deps.pool.member(call.id("id"))
    if member is None:
        raise NotFound("There is no such backend.")
    if member.worker is None:
        raise Conflict("This backend does not have the worker pack, which this needs.")
    return member
