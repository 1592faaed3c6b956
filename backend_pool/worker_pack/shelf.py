"""Ended jobs whose files have not been let go of while later ones run.

Bounded: what nobody has asked for the longest goes when there are too many, or when that is too long ago.
"""

import time
from collections.abc import Callable

from .carried import Carried

JOBS = 8
"""The server fetches files of three jobs of one worker at a time; the others are of servers that were killed, or that
could not reach the worker when a job was over."""
UNTOUCHED_S = 6 * 3600.0
"""A server that was killed asks again when it is back."""


class Shelf:
    """By id. Not thread-safe: the slot's lock guards it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._jobs: dict[str, Carried] = {}
        self._clock = clock

    def put(self, job: Carried) -> Carried | None:
        """Keep it; what is returned had its id before and is to be removed."""
        before = self._jobs.get(job.id)
        self._jobs[job.id] = job
        return before

    def of(self, prompt_id: str) -> Carried | None:
        """The job of that id."""
        return self._jobs.get(prompt_id)

    def take(self, prompt_id: str) -> Carried | None:
        """The job of that id, which is here no more."""
        return self._jobs.pop(prompt_id, None)

    def unwanted(self, job: Carried) -> bool:
        """Whether nobody has asked for it for so long that nobody will, be it here or not."""
        return self._clock() - job.touched_s > UNTOUCHED_S

    def too_many(self) -> list[Carried]:
        """What has to go; it is here no more."""
        by_use = sorted(self._jobs.values(), key=lambda job: job.touched_s)
        over = max(0, len(by_use) - JOBS)
        old = [job for job in by_use[over:] if self.unwanted(job)]
        return [self._jobs.pop(job.id) for job in (*by_use[:over], *old)]
