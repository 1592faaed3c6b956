"""Jobs that came back from a backend, and what their users leave to others because of it. Pure.

For a while all jobs of the user leave that backend to others: the job tries another one first, and no later job of
its user's passes it meanwhile. Afterwards the backend is as good as any for it, only the last choice among idle ones.
"""

from collections.abc import Callable
from typing import NamedTuple

from backend_pool.model import Job


class _Left(NamedTuple):
    user_id: int
    backends: frozenset[int]
    until_s: float


class Comebacks:
    """Times are seconds since the epoch. Holds the jobs that came back in the last `while_s` and nothing else."""

    def __init__(self, while_s: float) -> None:
        self._while_s = while_s
        self._unread: dict[int, int] = {}
        self._left: dict[int, _Left] = {}

    def returned(self, seq: int, user_id: int) -> None:
        """A job came back; its row has to be read before another of its user's may go."""
        self._unread[seq] = user_id

    def behind(self, job: Job) -> bool:
        """Whether the job has to wait until one of its user's that came back has been read."""
        return job.key not in self._unread and job.user_id in self._unread.values()

    def keep_unread(self, on_the_way: Callable[[int, int], bool]) -> None:
        """Forget those that are gone. `on_the_way` says of a seq and its user whether its row will come yet."""
        self._unread = {seq: user for seq, user in self._unread.items() if on_the_way(seq, user)}

    def read(self, job: Job, harmed: frozenset[int], now_s: float) -> bool:
        """Its row is known, and backends that it harmed or that did not suit, where it could run beside others now.

        Returns whether the user leaves others than before.
        """
        self._unread.pop(job.key, None)
        until_s = job.trail[-1][0] / 1000 + self._while_s if job.trail else 0.0
        before = self.left_by(job.user_id)
        self._left.pop(job.key, None)
        if harmed and self._lasts(until_s, now_s):
            self._left[job.key] = _Left(job.user_id, harmed, until_s)
        return self.left_by(job.user_id) != before

    def left_by(self, user_id: int) -> frozenset[int]:
        """Backends that the user leaves to others."""
        return frozenset[int]().union(*(left.backends for left in self._left.values() if left.user_id == user_id))

    def over(self, waits: Callable[[int], bool], now_s: float) -> set[int]:
        """Forget jobs that wait no more, and those whose time is over; whose they were."""
        over = {seq: left for seq, left in self._left.items() if not self._lasts(left.until_s, now_s) or not waits(seq)}
        for seq in over:
            del self._left[seq]
        return {left.user_id for left in over.values()}

    def _lasts(self, until_s: float, now_s: float) -> bool:
        """Where the clock was set back, the time is over: it must not grow by as much."""
        return now_s < until_s <= now_s + self._while_s
