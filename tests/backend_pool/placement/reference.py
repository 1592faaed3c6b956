"""The rules of the line as plainly as they can be said: every decision looks at every job, spot and user.

What the real line keeps in indexes is worked out anew here each time, so both agree only if the indexes are right.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from backend_pool.books.share import Share
from backend_pool.lane import Lane
from backend_pool.placement.line import LAG_JOBS, LAG_S, STORED_LAG_S
from backend_pool.placement.values import Choice, Kind, Policy, Spot, Waiting

Key = tuple[float, ...]


@dataclass
class Person:
    """A user."""

    share: Share = field(default_factory=Share)
    settled_s: float = 0.0
    charges: dict[int, float] = field(default_factory=dict)
    served: int = 0
    came: int = 0
    placed: int = 0
    mean_s: float | None = None

    @property
    def virtual_s(self) -> float:
        return self.settled_s + sum(self.charges.values())

    @property
    def free(self) -> bool:
        return len(self.charges) < self.share.running_limit


class Reference:
    """Same verbs as the line."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.people: dict[int, Person] = {}
        self.jobs: dict[int, Waiting] = {}
        self.running: dict[int, Waiting] = {}
        self.aged: set[int] = set()
        self.passed_s: dict[int, float] = {}
        self.reached_s = 0.0
        self.open = False
        self.placements = 0
        self.mean_s: float | None = None

    # -- what happens ----------------------------------------------------------------------------------------------

    def know(self, user_id: int, share: Share, virtual_s: float | None) -> None:
        person = self.people.setdefault(user_id, Person())
        person.share = share
        person.settled_s = max(person.settled_s, virtual_s or 0.0)

    def add(self, job: Waiting) -> None:
        person = self.people.setdefault(job.user_id, Person())
        if not person.charges and not self.own(job.user_id):
            person.settled_s = max(person.settled_s, self.entry_s() if self.open else 0.0)
            person.came, person.placed = job.seq, 0
        self.jobs[job.seq] = job

    def remove(self, seq: int) -> None:
        self.forget(seq)

    def change(self, seq: int, kind: Kind) -> None:
        self.jobs[seq] = replace(self.jobs[seq], kind=kind)

    def started(self, choice: Choice, now_s: float) -> None:
        if choice.passed is not None:
            self.passed_s.setdefault(choice.passed, now_s)
        charge_s = self.guess_s(self.jobs[choice.seq], choice.spot)
        job = self.forget(choice.seq)
        person = self.people[job.user_id]
        if choice.passed is None:
            self.reached_s = max(self.reached_s, person.settled_s - max(0.0, self.ahead_s(job)))
        self.placements += 1
        self.running[job.seq] = job
        person.charges[job.seq] = charge_s / person.share.weight
        person.served = self.placements
        person.placed += 1

    def ended(self, seq: int, used_s: float) -> float:
        job = self.running.pop(seq)
        person = self.people[job.user_id]
        took_s = used_s / person.share.weight
        level_s = person.virtual_s + max(0.0, took_s - person.charges.pop(seq)) + max(0.0, -self.ahead_s(job))
        person.settled_s += max(0.0, self.reached_s - self.lag_s() - level_s) + took_s
        if used_s:
            person.mean_s = used_s if person.mean_s is None else person.mean_s + 0.2 * (used_s - person.mean_s)
            self.mean_s = used_s if self.mean_s is None else self.mean_s + 0.2 * (used_s - self.mean_s)
        return person.settled_s

    def returned(self, job: Waiting, used_s: float) -> None:
        person = self.people[job.user_id]
        del self.running[job.seq]
        self.jobs[job.seq] = job
        del person.charges[job.seq]
        person.settled_s += used_s / person.share.weight
        person.placed -= used_s == 0

    # -- whose turn it is ------------------------------------------------------------------------------------------

    def next(self, spots: Iterable[Spot], now_s: float) -> Choice | None:
        if not self.open:
            self.begin()
        for job in list(self.jobs.values()):
            old = job.since_s + self.policy.batch_wait_s <= now_s
            if job.lane is Lane.BATCH and old and job.seq not in self.aged:
                self.aged.add(job.seq)
        pairs = [(job, spot) for spot in spots for job in self.jobs.values() if self.may(job, spot, now_s)]
        if not pairs:
            return None
        turn = min((job for job, _ in pairs), key=self.key)
        spot = min((spot for job, spot in pairs if job is turn), key=lambda spot: self.fit(turn, spot))
        warm = [job for job, place in pairs if place is spot and self.may_pass(job, turn, spot, now_s)]
        if warm:
            job = min(warm, key=self.key)
            return Choice(job.seq, spot.key, "warm", spot.load(job.kind.models), turn.seq)
        return Choice(turn.seq, spot.key, "turn", spot.load(turn.kind.models & spot.warm))

    def may(self, job: Waiting, spot: Spot, now_s: float) -> bool:
        person = self.people[job.user_id]
        if not person.free or spot.key not in job.kind.places or job.user_id in spot.closed:
            return False
        held = spot.reserved
        if held is None or now_s * 1000 >= held.end_ms or held.group_id == person.share.group_id:
            return True
        takes_s = self.guess_s(job, spot.key) + spot.load(job.kind.models - spot.warm)
        return now_s + takes_s <= held.begin_ms / 1000

    def may_pass(self, job: Waiting, turn: Waiting, spot: Spot, now_s: float) -> bool:
        person, first = self.people[job.user_id], self.people[turn.user_id]
        own = [other for other in self.own(job.user_id) if self.may(other, spot, now_s)]
        return (
            self.policy.order == "fair"
            and self.policy.affinity_s > 0
            and bool(turn.kind.models - spot.warm)
            and bool(job.kind.models)
            and job.kind.models <= spot.warm
            and job.user_id != turn.user_id
            and self.batch(job) == self.batch(turn)
            and job is min(own, key=self.key)
            and self.key(job)[1] <= self.key(turn)[1] + self.policy.affinity_s
            and now_s - self.passed_s.get(turn.seq, now_s) <= self.policy.affinity_s
            and (first.placed > 0 or person.placed == 0)
        )

    def fit(self, job: Waiting, spot: Spot) -> tuple[float, ...]:
        load_s = spot.load(job.kind.models - spot.warm)
        own = job.graph != "" and spot.user_id == job.user_id and spot.graph == job.graph
        undone_s = sum(
            spot.load((other.kind.models & spot.warm) - job.kind.models)
            for other in self.jobs.values()
            if load_s and spot.key in other.kind.places and other.kind != job.kind
        )
        work_s = self.guess_s(job, spot.key)
        return (spot.key in job.avoid, load_s, not own, undone_s, work_s, spot.failed, spot.done, spot.key)

    def key(self, job: Waiting) -> Key:
        person = self.people[job.user_id]
        own = (-job.priority, job.number, job.seq)
        if self.policy.order == "fifo":
            return (0, job.seq)
        if self.policy.order == "turns":
            return (self.batch(job), person.served, person.came, *own)
        return (self.batch(job), person.virtual_s - self.ahead_s(job), person.served, person.came, *own)

    # -- virtual time ----------------------------------------------------------------------------------------------

    def entry_s(self) -> float:
        active = [person.settled_s for user_id, person in self.people.items() if person.charges or self.own(user_id)]
        return max(self.reached_s - self.lag_s(), min(active, default=self.reached_s))

    def begin(self) -> None:
        """What was put in before the first question was there in an earlier life."""
        self.open = True
        active = [user_id for user_id, person in self.people.items() if person.charges or self.own(user_id)]
        stored = [self.people[user_id].settled_s for user_id in active if self.people[user_id].settled_s]
        least_s = max(min(stored), max(stored) - STORED_LAG_S) if stored else 0.0
        for user_id in active:
            self.people[user_id].settled_s = max(self.people[user_id].settled_s, least_s)

    def lag_s(self) -> float:
        return LAG_S + LAG_JOBS * (self.mean_s or 0.0)

    def guess_s(self, job: Waiting, spot: int) -> float:
        return max(1.0, job.work_s.get(spot) or job.expected_s or self.people[job.user_id].mean_s or self.mean_s or 0.0)

    def ahead_s(self, job: Waiting) -> float:
        return job.priority * self.policy.priority_step_s

    def batch(self, job: Waiting) -> bool:
        return self.policy.order != "fifo" and job.lane is Lane.BATCH and job.seq not in self.aged

    def own(self, user_id: int) -> list[Waiting]:
        def key(job: Waiting) -> Key:
            if self.policy.order == "fifo":
                return (job.seq,)
            return (self.batch(job), -job.priority, job.number, job.seq)

        return sorted((job for job in self.jobs.values() if job.user_id == user_id), key=key)

    def forget(self, seq: int) -> Waiting:
        self.aged.discard(seq)
        self.passed_s.pop(seq, None)
        return self.jobs.pop(seq)
