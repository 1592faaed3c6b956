"""Random lives of a pool for forecasts: users, groups, lanes, priorities, models, reservations, arrivals, missed times.

The real line decides; a seed decides everything else."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

from backend_pool.books.share import Share
from backend_pool.books.shares import Reserved
from backend_pool.forecasts.scene import Case, Scene, Seat
from backend_pool.lane import Lane
from backend_pool.placement.line import Line
from backend_pool.placement.values import Kind, Policy, Spot, Waiting

NOW_S = 1_700_000_000.0
MODELS = ("flux", "sdxl", "wan")
LOADS = {"flux": 6.0, "sdxl": 2.5, "wan": 11.0}
GROUP = 7
LATE = 0.1


@dataclass(frozen=True)
class Going:
    """A job on a backend: what it is expected to take, and what it takes."""

    job: Waiting
    spot: Spot
    began_s: float
    expected_s: float
    takes_s: float


@dataclass
class Life:
    """One seed. `moments` yields scenes; between two of them the pool goes on by one event."""

    seed: int
    noise: float = 0.0
    arrivals: int = 0
    began: dict[int, float] = field(default_factory=dict)
    """When each job started."""
    changed: list[float] = field(default_factory=list)
    """When somebody came, or a job ended at another time than expected."""

    def __post_init__(self) -> None:
        chance = self.chance = random.Random(self.seed)
        self.now_s = NOW_S
        self.line = Line(Policy(affinity_s=chance.choice([0.0, 15.0]), batch_wait_s=chance.choice([40.0, 3600.0])))
        self.keys = range(1, chance.randint(1, 4) + 1)
        self.free = {key: Spot(key, load_s=LOADS, reserved=self._reserved()) for key in self.keys}
        self.going: dict[int, Going] = {}
        self.events: list[tuple[float, int]] = []
        self.last = 0
        self.users = range(1, chance.randint(2, 6) + 1)
        self.shares = {user: self._share() for user in self.users}
        for user, share in self.shares.items():
            self.line.know(user, share)
        for spot in self.free.values():
            if spot.reserved is not None:
                heappush(self.events, (spot.reserved.begin_ms / 1000, 0))
                heappush(self.events, (spot.reserved.end_ms / 1000, 0))
        for _ in range(self.arrivals):
            heappush(self.events, (NOW_S + chance.uniform(1, 90), -1))
        for _ in range(chance.randint(4, 24)):
            self._come()

    def moments(self) -> Iterator[Scene]:
        """Scenes as the server would have them, after what could be placed was."""
        while len(self.line) or self.going:
            self._place()
            yield self.scene()
            if not self.events:
                return
            self.now_s, what = heappop(self.events)
            if what == -1:
                self.changed.append(self.now_s)
                self._come()
            elif what:
                self._end(what)

    def scene(self) -> Scene:
        """Now."""
        waiting = [job for user in self.users for job in self.line.waiting(user)]
        return Scene(
            line=self.line.copy(),
            now_s=self.now_s,
            seats=[self._seat(key) for key in self.keys],
            cases={job.seq: Case(job, job.work_s) for job in waiting},
            shares=self.shares,
        )

    def _seat(self, key: int) -> Seat:
        spot = self.free.get(key)
        if spot is not None:
            return Seat(spot, "idle")
        going = next(going for going in self.going.values() if going.spot.key == key)
        so_far_s = self.now_s - going.began_s
        left_s = max(going.expected_s - so_far_s, LATE * so_far_s if self.noise else 0.0)
        known = key in going.job.work_s
        used_s = so_far_s + left_s
        return Seat(
            going.spot, "busy", self.now_s + left_s if known else None, going.job.seq, going.job.user_id, used_s
        )

    def _place(self) -> None:
        while self.free and (choice := self.line.next(self.free.values(), self.now_s)) is not None:
            job, spot = self.line.get(choice.seq), self.free.pop(choice.spot)
            assert job is not None
            self.line.started(choice.seq, choice.spot, self.now_s)
            load_s = sum(LOADS[model] for model in job.kind.models - spot.warm)
            work_s = job.work_s.get(spot.key, 10.0)
            takes_s = load_s + work_s * (self.chance.lognormvariate(0, self.noise) if self.noise else 1.0)
            warm = spot.warm if job.kind.models <= spot.warm else job.kind.models
            after = replace(spot, warm=warm, user_id=job.user_id, graph=job.graph)
            self.going[job.seq] = Going(job, after, self.now_s, load_s + work_s, takes_s)
            self.began[job.seq] = self.now_s
            heappush(self.events, (self.now_s + takes_s, job.seq))

    def _end(self, seq: int) -> None:
        going = self.going.pop(seq)
        self.line.ended(seq, going.takes_s)
        self.free[going.spot.key] = going.spot
        if going.takes_s != going.expected_s:
            self.changed.append(self.now_s)

    def _come(self) -> None:
        self.last += 1
        chance = self.chance
        places = frozenset(self.keys) if chance.random() < 0.7 else frozenset(chance.sample(self.keys, 1))
        models = frozenset(chance.choices(MODELS, k=chance.choice([0, 1, 1, 2])))
        work_s: Mapping[int, float] = {key: chance.uniform(2, 30) for key in self.keys}
        if self.noise and chance.random() < 0.1:
            work_s = {}
        self.line.add(
            Waiting(
                self.last,
                chance.choice(self.users),
                float(self.last if chance.random() < 0.9 else -self.last),
                Kind(places, models),
                chance.choice([Lane.INTERACTIVE, Lane.INTERACTIVE, Lane.INTERACTIVE, Lane.BATCH]),
                chance.choice([0, 0, 0, 1, -1]),
                since_s=self.now_s,
                expected_s=chance.uniform(2, 30),
                work_s=work_s,
            )
        )

    def _share(self) -> Share:
        chance = self.chance
        return Share(
            weight=chance.choice([1.0, 1.0, 2.0]),
            running_limit=chance.choice([1, 1, 2]),
            group_id=chance.choice([None, None, GROUP]),
        )

    def _reserved(self) -> Reserved | None:
        if self.chance.random() < 0.75:
            return None
        begin_s = NOW_S + self.chance.uniform(-20, 60)
        return Reserved(GROUP, round(begin_s * 1000), round((begin_s + self.chance.uniform(10, 60)) * 1000))
