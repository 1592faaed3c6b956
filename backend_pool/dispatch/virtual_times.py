"""Virtual times of the line's users between this process and the next: nobody's turn is lost with either.

Read once, before anybody is put into the line; stored with each job's end, and now and then where it changed without.
"""

from collections.abc import Collection

from backend_pool.books.shares import Shares
from backend_pool.jobs.queue_reads import QueueReads
from backend_pool.model import Job
from backend_pool.placement.line import Line

STORED_BY_S = 0.001
"""Smaller changes of a virtual time are not worth a write."""


class VirtualTimes:
    """What users have had, beside the line that counts it."""

    def __init__(self, reads: QueueReads, line: Line, shares: Shares) -> None:
        self._reads = reads
        self._line = line
        self._shares = shares
        self._stored: dict[int, float] | None = None
        self._introduced: set[int] = set()
        self._used: dict[int, float] = {}
        self._changed: set[int] = set()

    @property
    def known(self) -> bool:
        """Whether they have been read."""
        return self._stored is not None

    async def load(self) -> dict[int, float]:
        """Where the last process stopped. Raises Unavailable."""
        self._stored = await self._reads.virtual_times()
        return self._stored

    def introduce(self, user_id: int) -> None:
        """Tell the line the user's share; and what was stored of them, once: from then on the line knows better."""
        stored = self._stored or {}
        virtual_s = None if user_id in self._introduced else stored.get(user_id)
        self._introduced.add(user_id)
        self._line.know(user_id, self._shares.share(user_id), virtual_s)

    def rendered(self, seq: int, used_s: float) -> None:
        """What a job took that is not in the line's time yet: its files are on their way."""
        self._used[seq] = used_s

    def over(self, seq: int, user_id: int | None) -> None:
        """A job of this user uses its backend no more; None when the line did not count it."""
        self._used.pop(seq, None)
        if user_id is not None:
            self._changed.add(user_id)

    def with_end_of(self, job: Job) -> float | None:
        """What is to be stored of its user with the end of a job."""
        if self._stored is None:
            return None
        used_s = self._used.get(job.key, 0.0) / self._shares.share(job.user_id).weight
        self._stored[job.user_id] = self._line.virtual_s(job.user_id) + used_s
        return self._stored[job.user_id]

    async def store(self, users: Collection[int]) -> None:
        """Put down what changed without the end of a job, of these users and others. Raises Unavailable."""
        if self._stored is None:
            return
        now = {user: self._line.virtual_s(user) for user in self._changed | set(users)}
        changed = {user: time for user, time in now.items() if abs(time - self._stored.get(user, 0.0)) > STORED_BY_S}
        if changed:
            await self._reads.store_virtual_times(changed)
            self._stored |= changed
        self._changed.clear()
