"""One held job: its row as last written, and the order in which writing and telling happen.

A result is stored before anybody is told (client demands B2, B3, B7). A database that is locked or full for a while
holds the job up and loses nothing: writing is repeated until it works.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from backend_pool.books.ledger import Spent
from backend_pool.comfy.frames import Frame, Message, encode
from backend_pool.comfy.result import Result
from backend_pool.job_state import JobState
from backend_pool.jobs.delay import Cause, Delay
from backend_pool.jobs.listener import JobListener
from backend_pool.jobs.store import JobStore
from backend_pool.model import Job, JsonDict
from proxy.base.clock import monotonic_s, now_ms
from proxy.base.errors import Unavailable
from proxy.base.logs import events
from proxy.base.repeated import Repeated

log = events(__name__)
often = Repeated(log)

RETRY_S = 1.0
RUNNING_AFTER_S = 0.1
"""A job that ends sooner is never written as running: assigned shows the same, and each write waits for the disk."""


class JobRecord:
    """The only path from a runner to the job's row and to the job's user."""

    def __init__(self, job: Job, store: JobStore, listener: JobListener) -> None:
        self.job = job
        self._store = store
        self._listener = listener
        self._began = asyncio.Event()
        self.began_ms: int | None = None
        self.rendered_ms: int | None = None
        self.delay = Delay()
        self._made_s = monotonic_s()
        self._rendered_s: float | None = None
        self._before_ms = 0 if job.assigned_ms is None else max(0, now_ms() - job.assigned_ms)

    @property
    def held_ms(self) -> int:
        """From its assignment to the end of rendering, or to now; no jump of the clock meanwhile counts."""
        return self._before_ms + round(((self._rendered_s or monotonic_s()) - self._made_s) * 1000)

    @property
    def began(self) -> bool:
        """Whether the backend has begun it."""
        return self.began_ms is not None or self.job.state is not JobState.ASSIGNED

    def tell(self, frame: Frame | Message) -> None:
        """Pass a frame to the tab that submitted the job."""
        self._listener.frame(self.job, encode(frame.type, frame.data) if isinstance(frame, Message) else frame)

    def begin(self) -> None:
        """The backend began it; `write_running` puts that down without holding up what the backend says next."""
        self.delay.end(Cause.QUEUED)
        if not self.began:
            self.began_ms = now_ms()
            self._began.set()

    def rendered(self) -> None:
        """The backend has ended it."""
        self.delay.end(Cause.QUEUED)
        self.rendered_ms = self.rendered_ms or now_ms()
        self._rendered_s = self._rendered_s or monotonic_s()

    async def write_running(self) -> None:
        """Store that the job runs, once it does. May be cancelled at any time."""
        await self._began.wait()
        await asyncio.sleep(RUNNING_AFTER_S)
        if self.job.state is not JobState.ASSIGNED:  # it may be collecting by now, and a slow file is being fetched
            return
        await self._write(lambda: self._store.running(self.job, self.began_ms))
        self._listener.queue_changed(self.job.user_id)

    async def note_files(self, files: list[JsonDict]) -> None:
        """Store where files are about to be."""

        async def write() -> Job:
            await self._store.note_files(self.job, files)
            return self.job

        await self._write(write)

    async def collecting(self, result: Result, files: list[JsonDict], spent: Spent) -> None:
        """The backend ended it; from here on it is never rendered again."""
        await self._write(lambda: self._store.collecting(self.job, result, files, spent))

    async def finish(
        self, state: JobState, result: Result, why: str, last: Message | None, spent: Spent | None = None
    ) -> None:
        """Store the end, then tell: success or error, the queue, the end marker (protocol §8.6)."""
        times = {"started_ms": self.began_ms, "rendered_ms": self.rendered_ms}
        await self._write(lambda: self._store.finish(self.job, state, result, why, spent=spent, **times))
        log.info("job ended", job=self.job.prompt_id, user=self.job.user_id, state=state, why=why)
        if last is not None:
            self.tell(last)
        self._listener.queue_changed(self.job.user_id)
        self.tell_end()

    def tell_end(self) -> None:
        """The end marker: API clients read the history once they see it."""
        self.tell(Message("executing", {"node": None, "prompt_id": self.job.prompt_id}))

    async def requeue(
        self,
        why: str,
        *,
        counts: bool,
        files: list[JsonDict],
        gpu_ms: int,
        avoid: int | None = None,
        vram_mb: int | None = None,
    ) -> None:
        """Back to its old place in the queue. `gpu_ms` is what its user is charged so far."""
        began = self.began
        put = partial(self._store.requeue, why=why, counts=counts, files=files, avoid=avoid, vram_mb=vram_mb)
        await self._write(lambda: put(self.job, gpu_ms=gpu_ms))
        log.warning("job requeued", job=self.job.prompt_id, user=self.job.user_id, why=why)
        if began:  # else the canvas would show its last step for as long as it waits
            self.tell(Message("progress_state", {"prompt_id": self.job.prompt_id, "nodes": {}}))
        self._listener.queue_changed(self.job.user_id)

    async def again(self, why: str, files: list[JsonDict], gpu_ms: int) -> None:
        """Another attempt at the same backend. `gpu_ms` is what its user is charged so far."""
        await self._write(lambda: self._store.again(self.job, why, files, gpu_ms))
        self._began.clear()
        self.began_ms = self.rendered_ms = self._rendered_s = None
        log.warning("job tried again", job=self.job.prompt_id, user=self.job.user_id, why=why)

    async def check_held(self) -> None:
        """Raise Fenced when somebody else has the job now."""

        async def look() -> Job:
            await self._store.check_held(self.job)
            return self.job

        await self._write(look)

    async def _write(self, write: Callable[[], Awaitable[Job]]) -> None:
        while True:
            try:
                self.job = await write()
                self.delay.end(Cause.DATABASE)
                return
            except Unavailable as error:
                self.delay.begin(Cause.DATABASE)
                often.error("job could not be written, trying again", job=self.job.prompt_id, error=error.message)
                await asyncio.sleep(RETRY_S)
