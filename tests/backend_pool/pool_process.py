"""A pool with its dispatcher as a process of its own, which kills itself with SIGKILL at a labelled point.

It carries the jobs it finds in a directory's database over the backends registered there, and ends with status 0 once
none is left.
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from backend_pool.comfy.frames import Frame, decode
from backend_pool.comfy.result import Result
from backend_pool.job_state import JobState
from backend_pool.jobs.store import JobStore
from backend_pool.model import Job, JsonDict
from proxy.base.settings import Settings
from tests.backend_pool.rig import QUICK, assemble, open_database, running

GRACE_S = 5.0
LABELS = ("assigned", "started", "running", "executed", "noted", "collecting", "before finish", "after finish")


STOP = "stop at "
"""Before a label: it is stopped there instead, once, and whoever stopped it lets it go on."""
_signals = [signal.SIGKILL]


def die() -> None:
    """No clean-up of any kind."""
    if _signals:
        os.kill(os.getpid(), _signals[-1])
    if _signals[-1:] == [signal.SIGSTOP]:  # it goes on
        _signals.clear()


class MortalStore(JobStore):
    """Dies at its label."""

    label = ""

    async def assign(self, seq: int, backend_id: int) -> Job | None:
        """Dies when the job is assigned and nothing is submitted."""
        job = await super().assign(seq, backend_id)
        if self.label == "assigned":
            die()
        return job

    async def running(self, job: Job, started_ms: int | None = None) -> Job:
        """Dies when the row says running."""
        job = await super().running(job, started_ms)
        if self.label == "running":
            die()
        return job

    async def note_files(self, job: Job, files: list[JsonDict]) -> None:
        """Dies when files are noted and not yet named."""
        await super().note_files(job, files)
        if self.label == "noted":
            die()

    async def collecting(self, job: Job, result: Result, *more: Any) -> Job:
        """Dies when the result is kept and its files are not here."""
        job = await super().collecting(job, result, *more)
        if self.label == "collecting":
            die()
        return job

    async def again(self, job: Job, why: str, files: list[JsonDict], gpu_ms: int) -> Job:
        """Dies when the memory is freed, before or after the second attempt is noted."""
        if self.label == "before again":
            die()
        job = await super().again(job, why, files, gpu_ms)
        if self.label == "after again":
            die()
        return job

    async def requeue(self, job: Job, why: str, **more: Any) -> Job:
        """Dies when the backend is quarantined, before or after the job is back in the queue."""
        if self.label == "before requeue":
            die()
        job = await super().requeue(job, why, **more)
        if self.label == "after requeue":
            die()
        return job

    async def finish(self, job: Job, state: JobState, result: Result, why: str, **more: Any) -> Job:
        """Dies right before or right after the end is stored."""
        if self.label == "before finish":
            die()
        job = await super().finish(job, state, result, why, **more)
        if self.label == "after finish":
            die()
        return job


class MortalListener:
    """Dies when a frame of its label's kind is told."""

    def __init__(self, label: str) -> None:
        self._kind = {"started": "execution_start", "executed": "executed"}.get(label)

    def frame(self, job: Job, frame: Frame) -> None:
        """A frame."""
        message = decode(frame) if isinstance(frame, str) else None
        if message is not None and message.type == self._kind:
            die()

    def queue_changed(self, user_id: int) -> None:
        """Nobody listens."""


async def main(root: Path, label: str) -> None:
    """Run until no job is left."""
    if label.startswith(STOP):
        _signals[:] = [signal.SIGSTOP]
        label = label.removeprefix(STOP)
    settings = Settings.model_validate({"data_dir": root, **QUICK})
    db = open_database(root)
    store = MortalStore(db, settings.queue_limit, settings.history_limit)
    store.label = label
    made: Any = assemble(root, listener=MortalListener(label), store=store, db=db, settings=settings)
    async with running(made):
        while await store.users_with_jobs():
            await asyncio.sleep(0.05)
        if label and _signals:  # the end may be seen before the one who wrote it gets to its label
            await asyncio.sleep(GRACE_S)


def carry(root: str, label: str) -> None:
    """What such a process runs."""
    asyncio.run(main(Path(root), label))
