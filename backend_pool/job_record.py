"""One held job: its row as last written, and the order in which writing and telling happen.

A result is stored before anybody is told (CLIENT_DEMANDS B2, B3, B7). A database that is locked or full for a while
holds the job up and loses nothing: writing is repeated until it works.
"""

import asyncio
from collections.abc import Awaitable, Callable

from backend_pool.frames import Frame, Message, encode
from backend_pool.job_state import JobState
from backend_pool.job_store import JobStore, Result
from backend_pool.listener import JobListener
from backend_pool.model import Job
from proxy.base.errors import Unavailable
from proxy.base.logs import events

log = events(__name__)

RETRY_S = 1.0


class JobRecord:
    """The only path from a runner to the job's row and to the job's user."""

    def __init__(self, job: Job, store: JobStore, listener: JobListener) -> None:
        self.job = job
        self._store = store
        self._listener = listener

    def tell(self, frame: Frame | Message) -> None:
        """Pass a frame to the tab that submitted the job."""
        self._listener.frame(self.job, encode(frame.type, frame.data) if isinstance(frame, Message) else frame)

    async def running(self) -> None:
        """The backend began it."""
        if self.job.state is JobState.ASSIGNED:
            await self._write(lambda: self._store.running(self.job))
            self._listener.queue_changed(self.job.user_id)

    async def collecting(self, result: Result) -> None:
        """The backend ended it; from here on it is never rendered again."""
        await self._write(lambda: self._store.collecting(self.job, result))

    async def finish(self, state: JobState, result: Result, why: str, last: Message | None) -> None:
        """Store the end, then tell: success or error, the queue, the end marker (protocol §8.6)."""
        await self._write(lambda: self._store.finish(self.job, state, result, why))
        log.info("job ended", job=self.job.prompt_id, user=self.job.user_id, state=state, why=why)
        if last is not None:
            self.tell(last)
        self._listener.queue_changed(self.job.user_id)
        self.tell(Message("executing", {"node": None, "display_node": None, "prompt_id": self.job.prompt_id}))

    async def requeue(self, why: str) -> None:
        """Back to its old place in the queue."""
        await self._write(lambda: self._store.requeue(self.job, why))
        log.warning("job requeued", job=self.job.prompt_id, user=self.job.user_id, why=why)
        self._listener.queue_changed(self.job.user_id)

    async def _write(self, write: Callable[[], Awaitable[Job]]) -> None:
        while True:
            try:
                self.job = await write()
                return
            except Unavailable as error:
                log.error("job could not be written, trying again", job=self.job.prompt_id, error=error.message)
                await asyncio.sleep(RETRY_S)
