"""The latest forecast as people see it: whose is told, when it counts as another, what is known of jobs far back."""

from dataclasses import replace

import pytest

from backend_pool.books.share import Share
from backend_pool.forecasts import outlooks
from backend_pool.forecasts.outlooks import Outlooks
from backend_pool.forecasts.scene import Case, Scene, Seat
from backend_pool.placement.line import Line
from backend_pool.placement.values import Kind, Policy, Spot, Waiting
from proxy.base.clock import monotonic_s

NOW = 1_000_000.0


def scene(*jobs: tuple[int, int], free_s: float = 5.0, tails: dict[int, int] | None = None) -> Scene:
    """Jobs as (seq, user), behind job 900 of user 9 on the only backend."""
    line, cases = Line(Policy()), {}
    for seq, user in jobs:
        waiting = Waiting(seq, user, float(seq), Kind(frozenset({1})), since_s=NOW)
        line.know(user, Share())
        line.add(waiting)
        cases[seq] = Case(waiting, {1: 10.0})
    seat = Seat(Spot(1), "busy", NOW + free_s, 900, 9, 5.0)
    return Scene(line, NOW, [seat], cases, tails=tails or {})


@pytest.fixture
def made() -> tuple[Outlooks, list[set[int]]]:
    """Outlooks, and the users it has rung for."""
    found, rung = Outlooks(), list[set[int]]()
    found.on_change.append(rung.append)
    return found, rung


async def test_each_user_is_told_of_their_own(made: tuple[Outlooks, list[set[int]]]) -> None:
    found, rung = made
    await found.renew(scene((1, 1), (2, 2), (3, 1)))
    assert rung == [{1, 2, 9}] and list(found.order) == [1, 2, 3]
    assert [(seq, look.position) for seq, look in found.of_user(1)] == [(1, 1), (3, 3)]
    assert [(seq, look.position, look.end_ms) for seq, look in found.of_user(9)] == [(900, None, (NOW + 5) * 1000)]
    assert found.of_user(77) == () and found.of(88, 1) is None


async def test_only_what_people_would_see_counts_as_a_change(made: tuple[Outlooks, list[set[int]]]) -> None:
    found, rung = made
    await found.renew(scene((1, 1), (2, 2)))
    await found.renew(scene((1, 1), (2, 2), free_s=6.0))
    assert rung == [{1, 2, 9}]
    await found.renew(scene((1, 1), (2, 2), free_s=6.9))
    await found.renew(scene((1, 1), (2, 2), free_s=7.1))  # small steps add up
    assert rung[1:] == [{1, 2, 9}]
    await found.renew(replace(scene((1, 1), (3, 2), free_s=7.1)))
    assert rung[2:] == [{2}]
    await found.renew(scene((1, 1), free_s=7.1))
    assert rung[3:] == [{2}] and found.of_user(2) == ()


async def test_putting_the_scene_together_counts_for_how_often(made: tuple[Outlooks, list[set[int]]]) -> None:
    """At most PART of the time goes into forecasts."""
    found, _ = made
    await found.renew(scene((1, 1)), monotonic_s() - 60)
    assert found.due_in_s > 60 / outlooks.PART - 61


async def test_a_job_far_back_is_known_by_its_rank(made: tuple[Outlooks, list[set[int]]]) -> None:
    found, _ = made
    await found.renew(scene((1, 1), (2, 1), tails={1: 50}))
    assert [found.of(1000 + rank, 1, rank=rank).position for rank in (2, 10, 51)] == [3, 11, 52]  # type: ignore[union-attr]


async def test_what_is_told_of_one_user_is_bounded(
    made: tuple[Outlooks, list[set[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlooks, "TOLD", 3)
    await made[0].renew(scene(*((seq, 1) for seq in range(1, 9))))
    assert [seq for seq, _ in made[0].of_user(1)] == [1, 2, 3]


async def test_the_next_forecast_is_not_due_at_once(made: tuple[Outlooks, list[set[int]]]) -> None:
    assert made[0].due_in_s == 0
    await made[0].renew(scene((1, 1)))
    assert made[0].due_in_s > 0
