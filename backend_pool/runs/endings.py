"""The ways an attempt ends: stored first, then told (client demands B2, B3, B7). Decides nothing.

What came home and is not shown goes before the end is stored, or before another attempt may write under the same names.
"""

import asyncio
from typing import Any

from backend_pool.backends.member import Member
from backend_pool.books.ledger import Spent
from backend_pool.comfy.frames import Message
from backend_pool.comfy.result import TERMINAL, Result, as_history, state_of
from backend_pool.comfy.verdicts import interrupted
from backend_pool.forecasts.meter import Meter
from backend_pool.job_state import JobState
from backend_pool.jobs.record import JobRecord
from backend_pool.runs.charge import spent
from backend_pool.runs.job_files import JobFiles
from backend_pool.runs.relay import Relay
from proxy.base.clock import now_ms


class Endings:
    """The ends of one attempt."""

    def __init__(self, record: JobRecord, files: JobFiles, relay: Relay, meter: Meter, member: Member) -> None:
        self._record = record
        self._files = files
        self._relay = relay
        self._meter = meter
        self._member = member
        self.spent: Spent | None = None
        """What its user is charged, once that is known."""
        self.forgiven = False
        """Whether its user is not charged for it."""
        job = record.job
        self._before_ms = 0 if job.state is JobState.COLLECTING else job.gpu_ms
        """What earlier attempts are charged; while files are fetched the row has the sum."""

    def charge(self, messages: list[Any]) -> Spent:
        """What it took of its backend, which has ended it with these messages."""
        self.spent = self.spent or self._spent(messages)
        return self.spent

    @property
    def used_ms(self) -> int:
        """What its user is charged for this attempt as far as is known: nothing before the backend's end."""
        found = self.spent
        if found is None and self._record.rendered_ms is not None:
            found = self._spent([])
        return 0 if found is None else found.gpu_ms - self._before_ms

    async def collecting(self, result: Result) -> None:
        """The backend has ended it, and files of it are not here yet."""
        await self._record.collecting(result, self._files.files, self.charge(result.messages))

    async def done(self, result: Result) -> None:
        """It ended at the backend, well or not, and its files are home."""
        ends = (Message(m[0], m[1]) for m in reversed(result.messages) if m[0] in TERMINAL)
        last = self._relay.last_words or next(ends, None)
        charged = self.charge(result.messages)
        await self._record.finish(state_of(result.messages), result, "ended at the backend", last, charged)
        self._files.ended()

    async def cancelled(self, why: str) -> None:
        """The user ended it."""
        message = interrupted(self._record.job.prompt_id)
        await asyncio.to_thread(self._files.discard, self._relay.told)
        messages = [as_history(message)]
        await self._record.finish(
            JobState.CANCELLED, Result(self._relay.told, messages=messages), why, message, self.charge([])
        )

    async def failed(self, message: Message, *, charged: bool = True) -> None:
        """It is over with an error; what a backend's loss made it do in vain is not charged."""
        message = Message(message.type, self._files.restored(message.data))
        await asyncio.to_thread(self._files.discard, self._relay.told)
        result = Result(self._relay.told, messages=[as_history(message)])
        why = str(message.data["exception_message"])
        self.forgiven = not charged
        if not charged:
            self.spent = Spent(self._before_ms, backend=self._member.row.name, device=self._member.device)
        await self._record.finish(JobState.FAILED, result, why, message, self.charge([]))

    async def given_back(
        self, why: str, *, counts: bool, charged: bool = False, avoid: int | None = None, vram_mb: int | None = None
    ) -> None:
        """It waits again at its old place."""
        await self._clear()
        gpu_ms = self.charge([]).gpu_ms if charged else self._before_ms
        self.forgiven = not charged
        if not charged:
            self.spent = Spent(gpu_ms)
        files = self._files.files
        await self._record.requeue(why, counts=counts, files=files, avoid=avoid, vram_mb=vram_mb, gpu_ms=gpu_ms)

    async def again(self, why: str) -> None:
        """It is tried once more where it is; its backend was well, so what has been done in vain is charged."""
        await self._clear()
        await self._record.again(why, self._files.files, self.charge([]).gpu_ms)

    async def _clear(self) -> None:
        await self._record.check_held()
        await asyncio.to_thread(self._files.discard, {})  # before it may start anew, under the same names

    def _spent(self, messages: list[Any]) -> Spent:
        job, name, device = self._record.job, self._member.row.name, self._member.device
        if job.state is JobState.COLLECTING and job.rendered_ms is not None:  # an earlier process may have heard it
            run_ms = max(0, job.rendered_ms - (job.started_ms or job.rendered_ms))
            return Spent(job.gpu_ms, job.load_ms, run_ms, name, device)
        ended_ms = self._record.rendered_ms or now_ms()
        found = spent(
            job,
            messages,
            began_ms=self._record.began_ms,
            ended_ms=ended_ms,
            load_ms=self._meter.load_ms,
            held_ms=self._record.held_ms,
        )
        return Spent(self._before_ms + found.gpu_ms, found.load_ms, found.run_ms, name, device)
