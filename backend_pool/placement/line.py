"""The line in front of the backends: who waits, what runs, and what each user has had of the pool.

Turns go by virtual time: GPU-seconds by the user's weight, charged by estimate at the start and corrected at the end.
Pure: times are passed in, storing them is the caller's. Holds the jobs that were put in and nothing else that grows.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace

from backend_pool.books.share import Share
from backend_pool.lane import Lane
from backend_pool.placement.decision import Decision
from backend_pool.placement.index import Index
from backend_pool.placement.ranking import Ranking
from backend_pool.placement.user import User
from backend_pool.placement.values import Choice, Kind, Policy, Spot, Waiting

LAG_S, LAG_JOBS = 60.0, 2
"""What a user may make up for who stood aside (a limit, a rare backend, batch work): so long plus so many mean jobs."""
STORED_LAG_S = 3600.0
"""How far apart stored virtual times are believed: one may have been stored long ago."""
LEAST_S = 1.0
"""What a job is expected to take at least."""
LATEST = 0.2
"""Part of the newest duration in a running mean."""


class Line:
    """The jobs that may be placed next; a placed one is known until it has ended or returned."""

    def __init__(self, policy: Policy) -> None:
        self._index = Index(policy)
        self._running: dict[int, tuple[int, float]] = {}
        """Whose the placed jobs are, and what put them back behind others'."""
        self._actives = Ranking()
        """Users with jobs that wait or run, by virtual time."""
        self._aging = Ranking()
        """Batch jobs by the time when they count as interactive."""
        self._aged: set[int] = set()
        self._passed_s: dict[int, float] = {}
        self._choice: Choice | None = None
        self._reached_s = 0.0
        """How far turns have come, in virtual time."""
        self._open = False
        """Whether anything was asked yet: until then, who comes was here before, in an earlier life of the proxy."""
        self._placements = 0
        self._mean_s: float | None = None

    def __len__(self) -> int:
        return len(self._index.jobs)

    def __contains__(self, seq: int) -> bool:
        return seq in self._index.jobs

    @property
    def policy(self) -> Policy:
        """By which it decides."""
        return self._index.policy

    def know(self, user_id: int, share: Share, virtual_s: float | None = None) -> None:
        """A user's part as of now, and their virtual time as it was stored; it never goes back."""
        user = self._user(user_id)
        if user.share.group_id == share.group_id:
            user.share = share
        else:
            moving = [self._index.take(job.seq) for job in self.waiting(user_id)]
            user.share = share
            for job in moving:
                self._index.put(job, aged=job.seq in self._aged)
        user.settled_s = max(user.settled_s, virtual_s or 0.0)
        self._show(user)

    def add(self, job: Waiting) -> None:
        """A job waits, or one that waits is another now. One that was placed is left alone."""
        if job.seq in self._running or self._index.jobs.get(job.seq) == job:
            return
        user = self._user(job.user_id)
        if not user.active:
            if self._open:
                user.settled_s = max(user.settled_s, self._entry_s())
            user.came, user.placed = job.seq, 0
        if job.seq in self:
            self._take(job.seq)
        self._index.put(job, aged=False)
        if job.lane is Lane.BATCH:
            self._aging.set(job.seq, (job.since_s + self._index.policy.batch_wait_s,))
        self._show(user)

    def remove(self, seq: int) -> None:
        """A job waits no more: cancelled, or beyond what is looked at. Nothing happens to one that does not wait."""
        if seq in self:
            self._show(self._index.users[self._take(seq).user_id])

    def change(self, seq: int, kind: Kind, work_s: Mapping[int, float] | None = None) -> None:
        """A waiting job can run elsewhere now, or takes another time there."""
        if seq in self:
            job = self._index.take(seq)
            work_s = job.work_s if work_s is None else work_s
            self._index.put(replace(job, kind=kind, work_s=work_s), aged=seq in self._aged)
            self._show(self._index.users[job.user_id])

    def next(self, spots: Iterable[Spot], now_s: float) -> Choice | None:
        """What to place next on one of these idle backends; None when nothing that waits may run there."""
        if not self._open:
            self._begin()
        self._age(now_s)
        decision = Decision(self._index, spots, now_s, passed_s=self._passed_s, guess_s=self._guess_s)
        self._choice = decision.choice()
        return self._choice

    def started(self, seq: int, spot: int, now_s: float) -> None:
        """A waiting job was placed: its user is charged what it is expected to take. Raises KeyError."""
        choice = self._choice if self._choice and (self._choice.seq, self._choice.spot) == (seq, spot) else None
        passed = choice.passed if choice else None
        self._choice = None
        if passed is not None:
            self._passed_s.setdefault(passed, now_s)
        charge_s = self._guess_s(self._index.jobs[seq], spot)
        job = self._take(seq)
        user = self._index.users[job.user_id]
        ahead_s = job.priority * self._index.policy.priority_step_s
        if passed is None:  # what is pulled forward is no measure of how far turns have come
            # Nor is what was put back: by it one job of low priority would wipe out what everybody has had.
            self._reached_s = max(self._reached_s, user.settled_s - max(0.0, ahead_s))
        self._running[seq] = (user.id, max(0.0, -ahead_s))
        self._placements += 1
        user.charges[seq] = charge_s / user.share.weight
        user.served = self._placements
        user.placed += 1
        self._show(user)

    def ended(self, seq: int, used_s: float) -> None:
        """A placed job is over; its user is charged what it took. Raises KeyError."""
        user_id, behind_s = self._running.pop(seq)
        user = self._index.users[user_id]
        took_s = max(0.0, used_s) / user.share.weight
        # While its job runs a high estimate counts: the user did not stand aside, and gets turns back.
        level_s = user.virtual_s + max(0.0, took_s - user.charges.pop(seq)) + behind_s
        user.settled_s += max(0.0, self._reached_s - self._lag_s() - level_s) + took_s
        if used_s > 0:
            user.mean_s = _mean(user.mean_s, used_s)
            self._mean_s = _mean(self._mean_s, used_s)
        self._show(user)

    def returned(self, job: Waiting, used_s: float = 0.0) -> None:
        """A placed job is tried again: it waits at its old place, and its user is charged what the attempt is said to
        have taken, which is nothing where the backend lost it."""
        if self._running.pop(job.seq, None) is None:
            self.add(job)
            return
        user = self._user(job.user_id)
        self.add(job)  # before the charge goes: the user was here all the time
        del user.charges[job.seq]
        if used_s > 0:
            user.settled_s += used_s / user.share.weight
        else:
            user.placed = max(0, user.placed - 1)
        self._show(user)

    def waiting(self, user_id: int) -> list[Waiting]:
        """A user's waiting jobs in their own order."""
        return self._index.own(user_id)

    def get(self, seq: int) -> Waiting | None:
        """A waiting job."""
        return self._index.jobs.get(seq)

    def keep(self, seqs: Container[int]) -> None:
        """Take out all waiting jobs but these."""
        for seq in [seq for seq in self._index.jobs if seq not in seqs]:
            self.remove(seq)

    def virtual_s(self, user_id: int) -> float:
        """What the user's ended jobs took, by the weight."""
        return self._user(user_id).settled_s

    def copy(self) -> "Line":
        """One that goes its own way, for forecasts."""
        twin = Line(self._index.policy)
        twin._index = self._index.copy()
        twin._running = self._running.copy()
        twin._actives = self._actives.copy()
        twin._aging = self._aging.copy()
        twin._aged = self._aged.copy()
        twin._passed_s = self._passed_s.copy()
        twin._choice = self._choice
        twin._open = self._open
        twin._reached_s, twin._placements, twin._mean_s = self._reached_s, self._placements, self._mean_s
        return twin

    def _user(self, user_id: int) -> User:
        return self._index.users.setdefault(user_id, User(user_id))

    def _take(self, seq: int) -> Waiting:
        self._aging.drop(seq)
        self._aged.discard(seq)
        self._passed_s.pop(seq, None)
        return self._index.take(seq)

    def _begin(self) -> None:
        """Users of whom nothing is stored come in where the others stand."""
        self._open = True
        active = [user for user in self._index.users.values() if user.active]
        stored = [user.settled_s for user in active if user.settled_s] or [0.0]
        least_s = max(min(stored), max(stored) - STORED_LAG_S)
        for user in active:
            user.settled_s = max(user.settled_s, least_s)
            self._show(user)

    def _age(self, now_s: float) -> None:
        while (due := self._aging.first()) is not None and due[0][0] <= now_s:
            seq = due[1]
            self._aging.drop(seq)
            self._aged.add(seq)
            job = self._index.take(seq)
            self._index.put(job, aged=True)
            self._show(self._index.users[job.user_id])

    def _guess_s(self, job: Waiting, spot: int) -> float:
        user = self._index.users[job.user_id]
        return max(LEAST_S, job.work_s.get(spot) or job.expected_s or user.mean_s or self._mean_s or 0.0)

    def _entry_s(self) -> float:
        """The virtual time of a user who comes: no credit for having been away, no debt either.

        Running jobs do not count, or the correction of a high estimate would put their user first again.
        """
        first = self._actives.first()
        return max(self._reached_s - self._lag_s(), first[0][-1] if first else self._reached_s)

    def _lag_s(self) -> float:
        return LAG_S + LAG_JOBS * (self._mean_s or 0.0)

    def _show(self, user: User) -> None:
        """Rank a user anew whose virtual time, limit or jobs changed."""
        first = self._index.first_own(user)
        user.front = first[0] if first else None
        if user.active:
            self._actives.set(user.id, (user.settled_s,))
        else:
            self._actives.drop(user.id)
        self._index.show(user)


def _mean(mean_s: float | None, new_s: float) -> float:
    return new_s if mean_s is None else mean_s + LATEST * (new_s - mean_s)
