"""Ending a user's jobs: the flag in the row, the runner, the tabs. One path for every route and page that cancels."""

from collections.abc import Collection
from dataclasses import dataclass

from backend_pool.dispatch.dispatcher import Dispatcher
from backend_pool.job_state import ACTIVE, ON_BACKEND, JobState
from backend_pool.jobs.store import JobStore
from backend_pool.model import Job
from proxy.tabs.user_events import UserEvents

WAITING = frozenset({JobState.QUEUED})


@dataclass(frozen=True)
class Jobs:
    """What may be done to jobs from outside. `prompt_ids` None means all of the user's."""

    store: JobStore
    dispatcher: Dispatcher
    events: UserEvents

    async def cancel(self, user_id: int, prompt_ids: Collection[str] | None) -> list[Job]:
        """End jobs wherever they are."""
        return await self._end(user_id, prompt_ids, ACTIVE)

    async def remove_waiting(self, user_id: int, prompt_ids: Collection[str] | None) -> list[Job]:
        """ComfyUI's POST /queue: takes only waiting ones."""
        return await self._end(user_id, prompt_ids, WAITING)

    async def interrupt(self, user_id: int, prompt_ids: Collection[str] | None) -> list[Job]:
        """ComfyUI's POST /interrupt: takes only what runs."""
        return await self._end(user_id, prompt_ids, ON_BACKEND)

    def progress(self, user_id: int, prompt_id: str) -> float | None:
        """Done part of a running job, 0 to 1; None when nothing is known."""
        return self.events.progress(user_id, prompt_id)

    def reason(self, seq: int) -> str | None:
        """Why the next waiting job of a user waits, in plain words, before it was foreseen when it starts."""
        return self.dispatcher.reason(seq)

    async def _end(self, user_id: int, prompt_ids: Collection[str] | None, states: frozenset[JobState]) -> list[Job]:
        jobs = await self.store.cancel(user_id, None if prompt_ids is None else list(prompt_ids), states)
        self.dispatcher.cancel(jobs)
        for job in jobs:
            if job.state is JobState.CANCELLED:
                self.events.forget(job)
        if jobs:
            self.events.queue_changed(user_id)
        return jobs
