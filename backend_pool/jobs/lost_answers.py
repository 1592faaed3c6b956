"""Changes of jobs whose answer never came: the database went away between doing and saying so.

Whoever writes tries again, and must be told that it is done, not that somebody else has the job now. Memory alone:
after a restart the row says where the job is. Bounded by the jobs that are carried.
"""

from typing import Any

from backend_pool.job_state import JobState
from backend_pool.model import Job

Line = list[Any]
"""Of a job's trail; the time in it tells one change from another."""


class LostAnswers:
    """`note` what got no answer; `done` finds it in the row at the next try."""

    def __init__(self) -> None:
        self._lines: dict[int, tuple[JobState, Line]] = {}

    def note(self, seq: int, target: JobState, line: Line) -> None:
        """This line would have been, or was, added to the trail."""
        self._lines[seq] = (target, line)

    def done(self, row: Job, held: Job, target: JobState) -> bool:
        """Whether the same change, by the same owner, is in the row as its newest."""
        wanted, line = self._lines.get(held.key, (None, None))
        if wanted is not target or not row.trail:
            return False
        return row.trail[-1] == line and row.epoch in (held.epoch, held.epoch + 1)

    def forget(self, seq: int) -> None:
        """An answer came."""
        self._lines.pop(seq, None)
