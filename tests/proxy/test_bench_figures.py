"""The figures of a load, by hand-made jobs, and that a seed makes the same load again."""

from dataclasses import replace

import pytest

from proxy.bench.figures import Done, figures, gaps, jain, share_error, window
from proxy.bench.plan import Load, orders, weights


def job(user: int, backend: int, queued: int, placed: int, ended: int, *, light: bool = False) -> Done:
    return Done(user, backend, queued, placed, placed + 10, ended, light)


SHARED = [
    job(0, 1, 0, 0, 1000),
    job(1, 2, 0, 0, 1000),
    job(0, 1, 0, 1000, 2000),
    job(1, 2, 0, 1000, 2000),
    job(0, 1, 0, 2000, 3000),
    job(1, 2, 0, 2000, 3000),
]


def test_two_users_on_two_backends_share_them_evenly() -> None:
    found = figures(SHARED, 2, {0: 1.0, 1: 1.0}, swaps=3, lost=0, doubled=0)
    assert (found.jobs, found.makespan_s, found.window_s) == (6, 3.0, 2.0)
    assert found.busy_share == pytest.approx(0.99)
    assert (found.jain, found.share_error) == (1.0, 0.0)
    assert (found.gap_p50_ms, found.wait_max_s) == (10.0, 2.0)
    assert found.waits_s == {0: (1.0, 2.0, 2.0), 1: (1.0, 2.0, 2.0)}


def test_one_who_has_it_all_shows_in_the_index() -> None:
    alone = [job(0, number % 2 + 1, 0, number // 2 * 1000, number // 2 * 1000 + 1000) for number in range(6)]
    last = job(1, 1, 0, 3000, 4000)
    found = figures([*alone, last], 2, {0: 1.0, 1: 1.0}, swaps=0, lost=0, doubled=0)
    assert found.jain == 0.5


def test_shares_are_judged_by_weight() -> None:
    assert jain([1, 2, 4]) < 0.8
    assert share_error({0: 10, 1: 20, 2: 40}, {0: 1, 1: 2, 2: 4}) == pytest.approx(0)
    assert share_error({0: 20, 1: 20, 2: 30}, {0: 1, 1: 2, 2: 4}) == pytest.approx(1)


def test_the_window_ends_when_somebody_has_nothing_waiting_any_more() -> None:
    early = replace(SHARED[0], queued_ms=500)
    assert window([early, SHARED[3]]) == (500, 500)
    assert window([*SHARED, job(2, 1, 700, 1500, 1600)]) == (700, 1500)
    assert window([]) == (0, 0)


def test_light_users_count_for_waits_and_work_and_not_for_fairness() -> None:
    found = figures([*SHARED, job(9, 1, 100, 400, 500, light=True)], 2, {0: 1.0, 1: 1.0}, swaps=0, lost=1, doubled=0)
    assert (found.light_wait_max_s, found.jain, found.lost) == (0.3, 1.0, 1)


def test_gaps_are_those_between_two_jobs_on_one_backend() -> None:
    assert gaps(SHARED, 0, 10_000) == [10.0] * 4
    assert gaps(SHARED, 1500, 10_000) == [10.0] * 2


def test_a_seed_makes_the_same_load_again() -> None:
    load = Load(jobs=300)
    alike = weights(load, different=False)
    plan = orders(load, alike)
    assert plan == orders(load, alike) != orders(replace(load, seed=2), alike)
    assert abs(len(plan) - load.jobs) < 30
    assert {order.user for order in plan} == set(range(load.users))
    work = [sum(order.steps for order in plan if order.user == user) for user in alike]
    assert max(work) - min(work) <= 8  # all the busy ones have about as much to do
    assert plan == sorted(plan, key=lambda order: order.at_s)


def test_users_of_more_weight_queue_more_work() -> None:
    load = Load(jobs=1800)
    due = weights(load, different=True)
    assert {(user % 3, due[user]) for user in due} == {(length, weight) for length in range(3) for weight in (1, 2, 4)}
    steps = dict.fromkeys(due, 0)
    for order in orders(load, due):
        if not order.light:
            steps[order.user] += order.steps
    assert max(steps[user] / due[user] for user in due) - min(steps[user] / due[user] for user in due) <= 8
