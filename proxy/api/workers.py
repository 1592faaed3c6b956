"""What only backends with the worker pack can do: the log of one's own job."""

from pydantic import BaseModel, Field

from backend_pool.errors import BackendError, FileGone
from backend_pool.job_state import ON_BACKEND
from backend_pool.workers.client import WorkerClient
from proxy.api.operations import Call
from proxy.base.errors import NotFound, Unavailable


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
