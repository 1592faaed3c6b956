"""Waiting jobs by bucket, so that a decision looks at buckets and at the first user of each, never at all jobs.

Keeps each bucket's users in the order of their turns; whose virtual time or limit changed has to be shown again.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice

from backend_pool.lane import Lane
from backend_pool.placement.ranking import Key, Ranking
from backend_pool.placement.user import Bucket, User
from backend_pool.placement.values import Policy, Waiting

LOOKS = 32
"""How many users, and jobs of one, are looked at for one that fits before a reservation or may be pulled forward."""

Found = tuple[Key, Waiting]
"""A job and its turn."""
Fits = Callable[[Waiting], bool]


class Index:
    """Knows every waiting job and its user."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.users: dict[int, User] = {}
        self.jobs: dict[int, Waiting] = {}
        self.counts: Counter[Bucket] = Counter()
        """Waiting jobs, those of users at their limit too."""
        self._bucket_of: dict[int, Bucket] = {}
        self._turns: dict[Bucket, Ranking] = {}

    def put(self, job: Waiting, *, aged: bool) -> None:
        """Take a job in. `aged`: it has waited long enough to leave the batch lane."""
        user = self.users[job.user_id]
        batch = job.lane is Lane.BATCH and not aged and self.policy.order != "fifo"
        bucket = Bucket(batch, user.share.group_id, job.kind)
        self.jobs[job.seq] = job
        self._bucket_of[job.seq] = bucket
        self.counts[bucket] += 1
        user.queues.setdefault(bucket, Ranking()).set(job.seq, self._own_key(job))
        self._show(user, bucket)

    def take(self, seq: int) -> Waiting:
        """Give a job out."""
        job, bucket = self.jobs.pop(seq), self._bucket_of.pop(seq)
        user = self.users[job.user_id]
        self.counts[bucket] -= 1
        queue = user.queues[bucket]
        queue.drop(seq)
        if queue:
            self._show(user, bucket)
        else:
            del user.queues[bucket]
            self._hide(user, bucket)
        if not self.counts[bucket]:
            del self.counts[bucket]
        return job

    def batch(self, seq: int) -> bool:
        """Whether the job waits in the batch lane."""
        return self._bucket_of[seq].batch

    def own(self, user_id: int) -> list[Waiting]:
        """A user's jobs in their own order, interactive ones first."""
        user = self.users.get(user_id)
        if user is None:
            return []
        keys = [(bucket.batch, key, seq) for bucket, queue in user.queues.items() for key, seq in queue.in_order()]
        return [self.jobs[seq] for *_, seq in sorted(keys)]

    def first_own(self, user: User) -> tuple[Bucket, Waiting] | None:
        """The first of them, and where it is."""
        best: tuple[bool, Key, Bucket] | None = None
        for bucket, queue in user.queues.items():
            first = queue.first()
            if first is not None and (best is None or (bucket.batch, first[0]) < best[:2]):
                best = (bucket.batch, first[0], bucket)
        return (best[2], self.jobs[int(best[1][-1])]) if best else None

    def show(self, user: User) -> None:
        """Rank the user anew wherever jobs of theirs wait, if their standing is another."""
        standing = (user.virtual_s, user.served, user.came) if user.free else None
        if standing != user.standing:
            user.standing = standing
            for bucket in user.queues:
                self._show(user, bucket)

    def turns(self, *, batch: bool) -> Iterable[tuple[Bucket, Ranking]]:
        """The buckets of a lane with their users in turn, none of them at their limit."""
        return [(bucket, turns) for bucket, turns in self._turns.items() if bucket.batch is batch]

    def first_fitting(self, bucket: Bucket, fits: Fits) -> Found | None:
        """The job of a bucket whose turn it is among those that fit, as far as LOOKS users go."""
        best: Found | None = None
        for key, name in islice(self._turns[bucket].in_order(), LOOKS):
            if best is not None and key > best[0]:
                break
            found = self.own_fitting(self.users[name], bucket, fits)
            if found is not None and (best is None or found[0] < best[0]):
                best = found
        return best

    def own_fitting(self, user: User, bucket: Bucket, fits: Fits) -> Found | None:
        """The first of the user's own jobs in a bucket that fits, as far as LOOKS jobs go."""
        for _, seq in islice(user.queues[bucket].in_order(), LOOKS):
            job = self.jobs[seq]
            if fits(job):
                return self.turn_key(user, job), job
        return None

    def turn_key(self, user: User, job: Waiting) -> Key:
        """Least first; ends with the job's own key, whose last part is its `seq`."""
        match self.policy.order:
            case "fifo":
                return (job.seq,)
            case "turns":
                return (user.served, user.came, *self._own_key(job))
            case "fair":
                ahead_s = job.priority * self.policy.priority_step_s
                return (user.virtual_s - ahead_s, user.served, user.came, *self._own_key(job))

    def copy(self) -> "Index":
        """One that goes its own way."""
        twin = Index(self.policy)
        twin.users = {name: user.copy() for name, user in self.users.items()}
        twin.jobs = self.jobs.copy()
        twin.counts = self.counts.copy()
        twin._bucket_of = self._bucket_of.copy()
        twin._turns = {bucket: turns.copy() for bucket, turns in self._turns.items()}
        return twin

    def _own_key(self, job: Waiting) -> Key:
        return (job.seq,) if self.policy.order == "fifo" else (-job.priority, job.number, job.seq)

    def _show(self, user: User, bucket: Bucket) -> None:
        first = user.queues[bucket].first()
        if first is None or not user.free:
            self._hide(user, bucket)
        else:
            key = self.turn_key(user, self.jobs[first[1]])
            self._turns.setdefault(bucket, Ranking()).set(user.id, key)

    def _hide(self, user: User, bucket: Bucket) -> None:
        turns = self._turns.get(bucket)
        if turns is not None:
            turns.drop(user.id)
            if not turns:
                del self._turns[bucket]
