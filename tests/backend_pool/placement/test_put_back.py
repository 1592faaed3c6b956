"""Jobs that are put back by a negative priority: what users have had is not forgotten, and newcomers come in first."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_pool.books.share import Share
from backend_pool.placement.values import Kind, Spot
from tests.backend_pool.placement.scene import ANN, BEN, CAT, Scene, placed

RARE = Kind(frozenset({2}))
HEAVY = range(10, 14)
LOWEST = -1000


@pytest.mark.parametrize("priority", [LOWEST, -5, -1])
def test_a_low_priority_does_not_wipe_out_what_others_are_owed(priority: int) -> None:
    """Ann had an hour more than Ben. A job on the backend that only she asks for changes as much as one put back."""
    owed = []
    for given_priority in (0, priority):
        scene = Scene()
        for user, had_s in ((ANN, 3600.0), (BEN, 0.0)):
            scene.line.know(user, Share(), had_s)
            scene.queue(user)
        scene.queue(ANN, RARE, priority=given_priority)
        for _ in range(3):
            scene.run(Spot(2), Spot(1))
        scene.queue(BEN)
        scene.run(used_s=1.0)
        owed.append((scene.line.virtual_s(ANN), scene.line.virtual_s(BEN)))
    assert owed[0] == owed[1]


def test_a_newcomer_after_a_job_that_was_put_back() -> None:
    """Seven users each run a long job; Cat comes after somebody's job of the lowest priority has run."""
    scene = Scene()
    everywhere = Kind(frozenset(range(1, 9)))
    for user in range(11, 18):
        scene.queue(user, everywhere, expected_s=3600)
        scene.queue(user, everywhere, expected_s=3600)
    long = [placed(scene.place(Spot(spot))) for spot in range(1, 8)]
    scene.queue(BEN, everywhere, priority=LOWEST, expected_s=1)
    scene.run(Spot(8), used_s=1)
    light = scene.queue(CAT, everywhere)
    scene.line.ended(long[0][0], 3600)
    assert scene.line.virtual_s(CAT) <= scene.line.virtual_s(12)
    assert placed(scene.place(Spot(1)))[0] == light


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000))
def test_a_newcomer_waits_for_one_job_of_each_at_most(seed: int) -> None:
    """Whatever low priorities the others' jobs have, who comes is before the second job of any of them."""
    chance, scene = random.Random(seed), Scene()
    owners: dict[int, int] = {}
    takes_s: dict[int, float] = {}

    def run() -> int:
        choice = scene.place()
        assert choice is not None
        scene.line.ended(choice.seq, takes_s[choice.seq])
        return choice.seq

    for _ in range(chance.randrange(5, 60)):
        for user in chance.sample(HEAVY, k=chance.randrange(1, 4)):
            priority, expected_s = chance.choice([0, 0, -1, -20, LOWEST]), chance.choice([1.0, 10.0, 300.0])
            seq = scene.queue(user, priority=priority, expected_s=expected_s)
            owners[seq], takes_s[seq] = user, expected_s
        run()
    light, before = scene.queue(CAT), []
    takes_s[light] = 10.0
    while (seq := run()) != light:
        before.append(owners[seq])
    assert len(before) == len(set(before))
