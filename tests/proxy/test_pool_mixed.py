"""Priorities, the batch lane and reservations in one load, on a virtual clock: what each may cost the others."""

import random
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import pytest

from backend_pool.books.share import Share
from backend_pool.books.shares import Reserved
from backend_pool.lane import Lane
from backend_pool.placement.line import LAG_JOBS, LAG_S
from backend_pool.placement.values import Policy
from proxy.bench.placement import MODELS
from proxy.bench.simulation import Load, Run, Simulation, Task

CLASS, FROM_S, TO_S = 7, 600.0, 900.0
RESERVED = (0, 1)
SPOTS = 4
PLAIN, EAGER, BATCH, PUPILS, RARE = range(6), range(6, 8), range(8, 10), range(10, 13), 13
POLICY = Policy(batch_wait_s=1500.0)
LONGEST_S = 12.0
STEPS = 2
"""Priority of everything that the eager ones ask for."""


def tasks(seed: int, *, eager: int, reserved: bool) -> Iterable[Task]:
    """Ten busy users from the beginning; pupils from the beginning of their hour; and one whose model one spot has."""
    chance = random.Random(seed)

    def task(user: int, arrives_s: float) -> Task:
        run_s = chance.uniform(3, LONGEST_S)
        models = frozenset({chance.choice(sorted(MODELS))})
        lane = Lane.BATCH if user in BATCH else Lane.INTERACTIVE
        priority = eager if user in EAGER else 0
        places = frozenset({3}) if user == RARE else None
        return Task(0, user, arrives_s, run_s, models, run_s, lane, priority, places)

    for user in (*PLAIN, *EAGER, *BATCH):
        yield from (task(user, chance.uniform(0, 20)) for _ in range(60))
    yield from (task(RARE, chance.uniform(0, 20)) for _ in range(30))
    if reserved:
        for user in PUPILS:
            yield from (task(user, FROM_S + 20 * number) for number in range(10))


@cache
def played(seed: int, eager: int = STEPS, reserved: bool = True) -> list[Run]:
    """One load to its end."""
    found = sorted(tasks(seed, eager=eager, reserved=reserved), key=lambda task: task.arrives_s)
    numbered = [task.numbered(seq) for seq, task in enumerate(found, 1)]
    shares = {user: Share(group_id=CLASS if user in PUPILS else None) for user in range(RARE + 1)}
    held = Reserved(CLASS, round(FROM_S * 1000), round(TO_S * 1000))
    load = Load(numbered, SPOTS, shares, MODELS, reserved=dict.fromkeys(RESERVED, held) if reserved else {})
    return Simulation(load, POLICY).run()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_reservation_is_kept_to_the_minute(seed: int) -> None:
    """Nobody else's job is there from its beginning to its end, and its own begin with it; before it no spot is idle
    for longer than a job takes, loading included, and after it others are back at once."""
    runs = played(seed)
    there = [run for run in runs if run.spot in RESERVED]
    strangers = [run for run in there if run.task.user_id not in PUPILS]
    assert not [run for run in strangers if run.begin_s < TO_S and run.end_s > FROM_S]
    for spot in RESERVED:
        mine = [run for run in there if run.spot == spot]
        assert min(run.begin_s for run in mine if run.begin_s >= FROM_S) == FROM_S
        assert FROM_S - max(run.end_s for run in mine if run.end_s <= FROM_S) <= LONGEST_S + max(MODELS.values())
        last_s = max([TO_S, *(run.end_s for run in mine if run.begin_s < TO_S)])
        assert min(run.begin_s for run in mine if run.begin_s >= TO_S) <= last_s
    pupils = [run for run in runs if run.task.user_id in PUPILS]
    assert max(run.wait_s for run in pupils) <= len(PUPILS) * (LONGEST_S + max(MODELS.values()))


@pytest.mark.parametrize("seed", [1, 2])
def test_batch_work_yields_and_is_not_lost(seed: int) -> None:
    """Before it has waited its time none begins where an interactive job of somebody idle could; then it has turns."""
    runs = played(seed)
    assert {run.task.seq for run in runs} == set(range(1, len(runs) + 1)), "every job ran"
    spans: dict[int, list[tuple[float, float]]] = {}
    for run in runs:
        spans.setdefault(run.task.user_id, []).append((run.begin_s, run.end_s))
    for run in runs:
        if run.task.lane is Lane.BATCH and run.wait_s < POLICY.batch_wait_s:
            assert not [other.task for other in runs if _could_have(other, run, spans)]
    for user in BATCH:
        waits = sorted(run.wait_s for run in runs if run.task.user_id == user)
        assert waits[0] <= POLICY.batch_wait_s + LONGEST_S + max(MODELS.values())


def _could_have(other: Run, run: Run, spans: dict[int, list[tuple[float, float]]]) -> bool:
    """Whether an interactive job that waited when this one began might have begun there: its user was at no limit, it
    might run there, and would have been done before a reservation."""
    task, now_s = other.task, run.begin_s
    if task.lane is Lane.BATCH or not task.arrives_s <= now_s < other.begin_s:
        return False
    if task.places is not None and run.spot not in task.places:
        return False
    if any(begin_s <= now_s < end_s for begin_s, end_s in spans[task.user_id]):
        return False
    if run.spot in RESERVED and task.user_id not in PUPILS and now_s < TO_S:
        return now_s + task.run_s + sum(MODELS[model] for model in task.models) <= FROM_S
    return True


@pytest.mark.parametrize("seed", [1, 2])
def test_priority_is_a_head_start_and_no_more(seed: int) -> None:
    """Who always asks for more has had the steps more, once and not again; the others bear that together."""
    runs, without = played(seed, reserved=False), played(seed, eager=0, reserved=False)
    ahead_s, one_s = STEPS * POLICY.priority_step_s, LONGEST_S + max(MODELS.values())
    gained = {at_s: [had(runs, user, at_s) - had(without, user, at_s) for user in EAGER] for at_s in (300, 1200)}
    assert all(0 < one <= ahead_s + one_s for some in gained.values() for one in some)
    assert all(late - early <= one_s for early, late in zip(gained[300], gained[1200], strict=True))
    for at_s in (300, 600, 900, 1200):
        lost = [had(without, user, at_s) - had(runs, user, at_s) for user in PLAIN]
        assert max(lost) <= len(EAGER) * ahead_s / len(PLAIN) + one_s


def had(runs: list[Run], user: int, until_s: float) -> float:
    """GPU-seconds of a user's by then."""
    mine = (run for run in runs if run.task.user_id == user and run.begin_s < until_s)
    return sum(min(run.end_s, until_s) - run.begin_s for run in mine)


@pytest.mark.parametrize("seed", [1, 2])
def test_who_can_use_one_spot_only_makes_up_for_so_much(seed: int) -> None:
    """The one spot serves others too: who stood aside does not have it for longer than the lag at a stretch."""
    runs = sorted((run for run in played(seed, reserved=False) if run.spot == 3), key=lambda run: run.begin_s)
    one_s = LONGEST_S + max(MODELS.values())
    stretch_s = longest_s = 0.0
    for run in runs:
        stretch_s = stretch_s + run.end_s - run.begin_s if run.task.user_id == RARE else 0.0
        longest_s = max(longest_s, stretch_s)
    others = [run for run in runs if run.task.user_id != RARE]
    assert others and longest_s <= LAG_S + LAG_JOBS * one_s + POLICY.affinity_s + one_s


def test_a_head_start_that_all_have_is_none() -> None:
    """The same order as without."""
    found = sorted(tasks(3, eager=0, reserved=False), key=lambda task: task.arrives_s)
    orders = []
    for steps in (0, 5):
        lifted = [replace(task, priority=steps).numbered(seq) for seq, task in enumerate(found, 1)]
        orders.append([run.task.seq for run in Simulation(Load(lifted, SPOTS, load_s=MODELS), POLICY).run()])
    assert orders[0] == orders[1]
