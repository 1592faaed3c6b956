"""The front of the queue in memory: the first waiting jobs of each user, read anew where something has changed.

The rows are the truth. Who submits, cancels or gives back a job tells whose jobs to read again; a census at each poll
finds what other processes did. Cost grows with the users that changed, not with the jobs that wait.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import NamedTuple

from backend_pool.jobs.queue_reads import Census, QueueReads
from backend_pool.model import Job

DEPTH = 16
"""Jobs of each user and lane that placement chooses from, as far as WINDOW allows."""
LEAST_DEPTH = 2
WINDOW = 8192
"""Jobs of all users together: where many wait, less of each is kept."""
USERS_AT_ONCE = 64
"""Users whose jobs are read between two placements."""
DEEPEST = 256
"""Where none of them can run on what is idle, so many are looked at."""


class Changes(NamedTuple):
    """What a reading found: jobs that have come to the front, and seqs that are no longer there."""

    came: list[Job]
    went: list[int]


@dataclass
class _Front:
    jobs: dict[int, Job] = field(default_factory=dict)
    """In their order."""
    depth: int = DEPTH
    whole: bool = True
    """Whether these are all that the user has waiting."""


class QueueMirror:
    """Rows of waiting jobs by user. `passed_by` says which of them are not to be touched: they are on their way to a
    backend, or their submitter has not been answered."""

    def __init__(self, reads: QueueReads, passed_by: Callable[[Job], bool]) -> None:
        self._reads = reads
        self._passed_by = passed_by
        self._fronts: dict[int, _Front] = {}
        self._users: dict[int, int] = {}
        self._census: dict[int, Census] = {}
        self._stale: set[int] = set()

    def __contains__(self, seq: int) -> bool:
        return seq in self._users

    def __len__(self) -> int:
        return len(self._users)

    @property
    def stale(self) -> bool:
        """Whether something has to be read again."""
        return bool(self._stale)

    def is_stale(self, user_id: int) -> bool:
        """Whether the user's jobs have to be read again."""
        return user_id in self._stale

    @property
    def users(self) -> Collection[int]:
        """Who has something at the front."""
        return self._fronts.keys()

    def get(self, seq: int) -> Job | None:
        """The row of a job at the front."""
        user_id = self._users.get(seq)
        return None if user_id is None else self._fronts[user_id].jobs[seq]

    def of(self, user_id: int) -> list[Job]:
        """The user's jobs at the front, in their order, the lanes mixed."""
        front = self._fronts.get(user_id)
        return [] if front is None else list(front.jobs.values())

    def front(self, user_id: int) -> Mapping[int, Job]:
        """The same by seq."""
        front = self._fronts.get(user_id)
        return {} if front is None else front.jobs

    def heads(self) -> Iterator[Job]:
        """Each user's next job."""
        for front in self._fronts.values():
            if front.jobs:
                yield next(iter(front.jobs.values()))

    def waiting(self, user_id: int) -> int:
        """How many jobs the user has waiting: all that are known here, or as many as were counted last."""
        front = self._fronts.get(user_id)
        if front is not None and front.whole:
            return len(front.jobs)
        return self._census.get(user_id, Census(0, 0)).jobs

    def touch(self, user_id: int) -> None:
        """The user's jobs have changed."""
        self._stale.add(user_id)

    def take(self, seq: int) -> Job | None:
        """Take a job out, for it goes to a backend or is gone; more of its user's are read when few are left."""
        job = self.get(seq)
        if job is None:
            return None
        front = self._fronts[job.user_id]
        del front.jobs[seq], self._users[seq]
        if not front.whole and len(front.jobs) <= front.depth // 2:
            front.depth = max(self._depth, front.depth // 2)
            self.touch(job.user_id)
        elif not front.jobs:
            del self._fronts[job.user_id]
        return job

    def deepen(self, user_id: int) -> None:
        """Look further into a user's queue: nothing at its front can run on what is idle."""
        front = self._fronts.get(user_id)
        if front is not None and not front.whole and front.depth < DEEPEST and len(self._users) < WINDOW:
            front.depth *= 2
            self.touch(user_id)

    async def count(self) -> None:
        """Find the users whose waiting jobs are others than at the last count. Raises Unavailable."""
        census = await self._reads.census()
        known, self._census = self._census, census
        self._stale |= {user for user in census.keys() | known.keys() if census.get(user) != known.get(user)}

    async def refresh(self, turn: Callable[[int], float] = float) -> Changes:
        """Read what is stale, of so many users whose turn comes first. Raises Unavailable, and it stays stale."""
        users = nsmallest(USERS_AT_ONCE, self._stale, key=turn)
        asked = {user: self._fronts[user].depth if user in self._fronts else self._depth for user in users}
        self._stale -= asked.keys()
        try:
            found = await self._reads.firsts(asked)
        except BaseException:
            self._stale |= asked.keys()
            raise
        changes = Changes([], [])
        for user_id, jobs in found.items():
            self._renew(user_id, jobs, asked[user_id], changes)
        return changes

    @property
    def _depth(self) -> int:
        return max(LEAST_DEPTH, min(DEPTH, WINDOW // max(1, len(self._census))))

    def _renew(self, user_id: int, jobs: list[Job], depth: int, changes: Changes) -> None:
        known = self._fronts.get(user_id, _Front())
        whole = all(sum(job.lane is lane for job in jobs) < depth for lane in {job.lane for job in jobs})
        ranked = sorted(jobs, key=lambda job: (-job.priority, job.number, job.key))
        new = {job.key: job for job in ranked if not self._passed_by(job)}
        changes.went.extend(known.jobs.keys() - new.keys())
        changes.came.extend(job for seq, job in new.items() if seq not in known.jobs)
        for seq in known.jobs.keys() - new.keys():
            del self._users[seq]
        self._users |= dict.fromkeys(new, user_id)
        if new or not whole:
            self._fronts[user_id] = _Front(new, self._depth if whole else depth, whole)
        else:
            self._fronts.pop(user_id, None)


def in_rounds(jobs: Iterable[Job]) -> list[Job]:
    """Everybody's first job, then everybody's second."""
    count: Counter[int] = Counter()
    ranked = []
    for job in jobs:
        ranked.append((count[job.user_id], job.key, job))
        count[job.user_id] += 1
    return [job for _, _, job in sorted(ranked, key=lambda entry: entry[:2])]
