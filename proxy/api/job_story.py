"""The operator's whole story of one job, of which its user sees one run: steps, backends, attempts, what it took."""

from pydantic import BaseModel, Field

from backend_pool.forecasts.outlook import told_of
from backend_pool.job_state import FINAL, JobState
from backend_pool.jobs.story import story
from backend_pool.lane import Lane
from backend_pool.model import Job
from proxy.api.operations import Call
from proxy.base.clock import now_ms
from proxy.base.errors import NotFound
from proxy.bodies.models import Answer
from proxy.views.deps import Deps
from proxy.views.jobs import JobView


class Step(Answer):
    """One change of a job."""

    at_ms: int
    state: str
    why: str
    backend_id: int | None
    backend: str | None = Field(description="Its name; None when no backend had the job, or it was removed since.")
    attempt: int


class JobStory(Answer):
    """A job without what its user wrote. Times are milliseconds since the epoch, lengths in milliseconds."""

    id: int
    prompt_id: str
    user_id: int
    user: str | None = Field(description="None when the account is gone.")
    state: JobState
    cancel_requested: bool
    lane: Lane
    priority: int
    labels: list[str] = Field(description="A backend must have all of these.")
    vram_mb: int = Field(description="A backend must have more graphics memory than this.")
    avoid: list[str] = Field(description="Backends that it goes to last.")
    attempt: int
    backend_id: int | None
    backend: str | None
    outputs_count: int
    created_ms: int
    assigned_ms: int | None
    started_ms: int | None
    rendered_ms: int | None = Field(description="When the backend ended it; its files came after that.")
    ended_ms: int | None
    wait_ms: int = Field(description="From the submission to the last attempt, or until now.")
    load_ms: int = Field(description="Loading models, in the last attempt.")
    run_ms: int | None = Field(description="From the backend's beginning to its end, in the last attempt.")
    gpu_ms: int = Field(description="What its user is charged.")
    position: int | None
    expected_start_ms: int | None
    expected_end_ms: int | None
    reason: str | None = Field(description="Why it waits.")
    steps: list[Step] = Field(description="The latest of them, oldest first.")


async def job(call: Call) -> BaseModel:
    """Where one job has been, why it went on from there, and what that took."""
    return await job_story(call.deps, call.id("id"))


async def job_story(deps: Deps, seq: int) -> JobStory:
    """The story of any user's job. Raises NotFound."""
    view = (await deps.views.some([seq])).get(seq)
    if view is None:
        raise NotFound("There is no such job.")
    names = {row.id: row.name for row in await deps.registry.listing() if row.id is not None}
    users = {user.key: user.name for user in await deps.access.users.listing()}
    return _told(view, names, users.get(view.job.user_id))


def _told(view: JobView, names: dict[int, str], user: str | None) -> JobStory:
    row = view.job
    return JobStory(
        id=row.key,
        user=user,
        backend=None if row.backend_id is None else names.get(row.backend_id),
        avoid=[names[key] for key in row.avoid if key in names],
        wait_ms=_wait_ms(row),
        run_ms=_run_ms(row),
        position=view.outlook.position,
        expected_start_ms=view.outlook.start_ms,
        expected_end_ms=view.outlook.end_ms,
        reason=told_of(view.outlook.reason) or None,
        steps=[Step.model_validate(chapter) for chapter in story(row, names)],
        **row.model_dump(include=COLUMNS),
    )


def _wait_ms(row: Job) -> int:
    until = row.assigned_ms or row.ended_ms or now_ms() // 1000 * 1000
    return max(0, until - row.created_ms)


def _run_ms(row: Job) -> int | None:
    if row.started_ms is None:
        return None
    ended_ms = row.rendered_ms or (row.ended_ms if row.state in FINAL else None)
    return None if ended_ms is None else max(0, ended_ms - row.started_ms)


COLUMNS = {
    "prompt_id", "user_id", "state", "cancel_requested", "lane", "priority", "labels", "vram_mb", "attempt",
    "backend_id", "outputs_count", "created_ms", "assigned_ms", "started_ms", "rendered_ms", "ended_ms", "load_ms",
    "gpu_ms",
}  # fmt: skip
