"""The line against its rules said plainly: whatever happens, both choose the same job, place and reason."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from backend_pool.books.share import Share
from backend_pool.books.shares import Reserved
from backend_pool.lane import Lane
from backend_pool.placement.line import Line
from backend_pool.placement.values import Choice, Kind, Policy, Spot, Waiting
from tests.backend_pool.placement.reference import Reference

SPOTS, USERS, GROUP = 3, 5, 7
MODELS = ("flux", "sdxl", "wan")
LOADS = {"flux": 20.0, "sdxl": 5.0}

policies = st.builds(
    Policy,
    order=st.sampled_from(["fair", "fair", "fair", "fifo", "turns"]),
    affinity_s=st.sampled_from([0.0, 8.0, 8.0, 30.0]),
    priority_step_s=st.just(4.0),
    batch_wait_s=st.sampled_from([12.0, 60.0]),
)


class Life:
    """The line and the reference side by side, and what happens to them: a seed decides."""

    def __init__(self, policy: Policy, seed: int) -> None:
        self.chance = random.Random(seed)
        self.line, self.plain = Line(policy), Reference(policy)
        self.now_s, self.last = 0.0, 0
        self.placed: dict[int, Waiting] = {}
        self.seen: list[Choice] = []
        self.virtual_s = dict.fromkeys(range(USERS), 0.0)
        chance = self.chance
        self.mixed = chance.random() < 0.3
        """Whether jobs differ in what placement asks of them besides models."""
        self.spots = [Spot(key, load_s=LOADS) for key in range(SPOTS)]
        for user_id in range(USERS):
            self.know(user_id)

    def step(self) -> None:
        chance = self.chance
        self.now_s += chance.choice([0.0, 0.5, 1.0, 4.0])
        weights = (40, 40, 30, 3, 3, 4, 2)
        deed = chance.choices(
            (self.place, self.add, self.end, self.lose, self.remove, self.change, self.know_somebody), weights
        )[0]
        deed()
        self.check()

    def kind(self) -> Kind:
        everywhere = frozenset(range(SPOTS))
        few = frozenset(key for key in everywhere if self.chance.random() < 0.5)
        models = frozenset(self.chance.choices(MODELS, k=self.chance.choice([0, 1, 1, 1, 2])))
        return Kind(few if self.mixed and self.chance.random() < 0.4 else everywhere, models)

    def add(self) -> None:
        self.last += 1
        chance = self.chance
        user_id = chance.randrange(USERS)
        job = Waiting(self.last, user_id, chance.choice([self.last, self.last, -self.last]), self.kind())
        job = replace(job, since_s=self.now_s, expected_s=chance.choice([0.0, 2.0, 6.0]))
        if chance.random() < 0.5:
            job = replace(job, work_s={key: chance.choice([2.0, 5.0, 90.0]) for key in range(SPOTS - 1)})
        if self.mixed:
            lane = chance.choice([Lane.INTERACTIVE, Lane.BATCH])
            graph = chance.choice(["", "portrait"])
            priority = chance.choice([0, 0, 0, 1, -1, -1000, 200])
            avoid = frozenset(chance.choice([[], [], [0], [0, 1]]))
            expected_s = chance.choice([0.0, 9.0, 900.0])
            job = replace(job, lane=lane, priority=priority, graph=graph, expected_s=expected_s, avoid=avoid)
        most_s = self.most_s()
        self.line.add(job)
        self.plain.add(job)
        assert self.line.virtual_s(user_id) <= most_s, "who comes is behind nobody"

    def most_s(self) -> float:
        """What the one has had who has had most."""
        return max(self.line.virtual_s(user_id) for user_id in range(USERS))

    def place(self) -> None:
        """Fill some idle spots, and have them hold what came there."""
        idle = [spot for spot in self.spots if self.chance.random() < 0.5]
        while True:
            choice = self.line.next(idle, self.now_s)
            assert choice == self.plain.next(idle, self.now_s)
            if choice is None:
                return
            self.seen.append(choice)
            job = self.placed[choice.seq] = self.plain.jobs[choice.seq]
            self.line.started(choice.seq, choice.spot, self.now_s)
            self.plain.started(choice, self.now_s)
            idle = [spot for spot in idle if spot.key != choice.spot]
            self.spots[choice.spot] = self.after(self.spots[choice.spot], job)

    def after(self, spot: Spot, job: Waiting) -> Spot:
        begin_s = self.now_s + self.chance.choice([-5, 5, 20])
        held = Reserved(GROUP, int(begin_s * 1000), int((begin_s + 15) * 1000))
        return replace(
            spot,
            warm=job.kind.models or spot.warm,
            user_id=job.user_id,
            graph=job.graph,
            done=spot.done + 1,
            failed=self.chance.randrange(2),
            reserved=held if self.mixed and self.chance.random() < 0.3 else None,
            closed=frozenset({job.user_id, self.chance.randrange(USERS)} if self.chance.random() < 0.2 else ()),
        )

    def end(self) -> None:
        if self.placed:
            seq = self.chance.choice(list(self.placed))
            user_id, most_s = self.placed.pop(seq).user_id, self.most_s()
            used_s = self.chance.choice([0.0, 1.0, 6.0, 6.0, 700.0 if self.mixed else 7.0])
            self.line.ended(seq, used_s)
            virtual_s = self.line.virtual_s(user_id)
            assert virtual_s == self.plain.ended(seq, used_s)
            took_s = used_s / self.plain.people[user_id].share.weight
            assert virtual_s <= most_s + took_s + 1e-9, "no more is forgotten of what users had than lies between them"

    def lose(self) -> None:
        if self.placed:
            job = self.placed.pop(self.chance.choice(list(self.placed)))
            used_s = self.chance.choice([0.0, 0.0, 1.0])
            self.line.returned(job, used_s)
            self.plain.returned(job, used_s)

    def remove(self) -> None:
        if self.plain.jobs:
            seq = self.chance.choice(list(self.plain.jobs))
            self.plain.remove(seq)
            self.line.remove(seq)

    def change(self) -> None:
        if self.plain.jobs:
            seq, kind = self.chance.choice(list(self.plain.jobs)), self.kind()
            self.plain.change(seq, kind)
            self.line.change(seq, kind)

    def know_somebody(self) -> None:
        self.know(self.chance.randrange(USERS))

    def know(self, user_id: int) -> None:
        chance = self.chance
        group_id = GROUP if self.mixed and chance.random() < 0.5 else None
        share = Share(group_id=group_id, weight=chance.choice([0.5, 1.0, 3.0]), running_limit=chance.choice([1, 1, 2]))
        virtual_s = chance.choice([None, 5.0])
        self.line.know(user_id, share, virtual_s)
        self.plain.know(user_id, share, virtual_s)

    def check(self) -> None:
        """Both hold the same jobs in the same order; virtual times never go back."""
        assert len(self.line) == len(self.plain.jobs)
        for user_id in range(USERS):
            assert self.line.waiting(user_id) == self.plain.own(user_id)
            virtual_s = self.line.virtual_s(user_id)
            assert virtual_s == self.plain.people[user_id].settled_s >= self.virtual_s[user_id]
            self.virtual_s[user_id] = virtual_s


@settings(max_examples=250, deadline=None)
@given(policies, st.integers(0, 10_000))
def test_the_line_keeps_its_rules(policy: Policy, seed: int) -> None:
    """Adding, placing, ending, losing, removing, changing, other shares, in any order."""
    life = Life(policy, seed)
    for _ in range(120):
        life.step()


def test_such_lives_see_what_there_is_to_see() -> None:
    """The comparison is worth something only where jobs are pulled forward and reservations and lanes are met."""
    lives = [Life(Policy(affinity_s=8.0, priority_step_s=4.0, batch_wait_s=12.0), seed) for seed in range(30)]
    for life in lives:
        for _ in range(120):
            life.step()
    seen = [choice for life in lives for choice in life.seen]
    assert sum(choice.why == "warm" for choice in seen) > len(seen) / 50
    assert {life.mixed for life in lives} == {True, False}


@settings(max_examples=30, deadline=None)
@given(policies, st.integers(0, 10_000))
def test_a_copy_goes_its_own_way(policy: Policy, seed: int) -> None:
    """A copy decides as the line does, and nothing that happens to it happens to the line."""
    life = Life(policy, seed)
    for _ in range(80):
        life.step()
    line, moment_s, spots = life.line, life.now_s, list(life.spots)
    line.next(spots, moment_s)
    life.line = line.copy()
    expected = life.plain.next(spots, moment_s)
    waiting = [line.waiting(user_id) for user_id in range(USERS)]
    for _ in range(40):
        life.step()
    assert line.next(spots, moment_s) == expected
    assert [line.waiting(user_id) for user_id in range(USERS)] == waiting
