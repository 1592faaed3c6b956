"""Priorities, batch work, reservations, the other orders, and what callers may rely on, by small scenes."""

from collections.abc import Iterable

import pytest

from backend_pool.books.share import Share
from backend_pool.books.shares import Reserved
from backend_pool.lane import Lane
from backend_pool.placement.values import Kind, Policy, Spot, Waiting
from tests.backend_pool.placement.scene import (
    ANN,
    ANY,
    BEN,
    CAT,
    FLUX,
    HAS_WAN,
    WAN,
    Scene,
    placed,
)


def test_priority_is_a_head_start_not_a_right_of_way() -> None:
    """Ann's are one step ahead, 60 s: six jobs of 10 s, then they share."""
    scene = Scene()
    owners = {scene.queue(ANN, priority=1): ANN for _ in range(30)} | {scene.queue(BEN): BEN for _ in range(30)}
    had = [owners[seq] for seq in scene.order(20)]
    assert had[:6] == [ANN] * 6
    assert had[6:].count(BEN) == 7


def test_priority_orders_own_jobs() -> None:
    scene = Scene()
    low, high = scene.queue(ANN, number=-5), scene.queue(ANN, priority=2)
    assert scene.order(2) == [high, low]


def test_batch_work_yields() -> None:
    """Ben's batch job came first and he had nothing, yet all of Ann's go before it."""
    scene = Scene()
    batch = scene.queue(BEN, lane=Lane.BATCH)
    ann = [scene.queue(ANN) for _ in range(3)]
    assert scene.order(4) == [*ann, batch]


def test_batch_work_runs_where_nothing_interactive_can() -> None:
    scene = Scene()
    batch = scene.queue(BEN, lane=Lane.BATCH)
    scene.queue(ANN, Kind(frozenset({1})))
    assert placed(scene.line.next([Spot(2)], 0)) == (batch, 2)


def test_batch_work_yields_to_own_interactive_work() -> None:
    scene = Scene()
    batch, mine = scene.queue(ANN, lane=Lane.BATCH), scene.queue(ANN)
    assert scene.order(2) == [mine, batch]


def test_batch_work_that_waited_long_is_interactive() -> None:
    scene = Scene(Policy(batch_wait_s=100))
    batch = scene.queue(BEN, lane=Lane.BATCH)
    ann = [scene.queue(ANN) for _ in range(20)]
    had = scene.order(13)
    assert had[:10] == ann[:10]
    assert batch in had[10:]


CLASS = 7


@pytest.mark.parametrize(
    ("now_s", "groups", "chosen"),
    [
        (50, (None, CLASS), 0),
        (95, (None, CLASS), 1),
        (150, (None, CLASS), 1),
        (150, (None, None), None),
        (200, (None, CLASS), 0),
    ],
)
def test_a_reserved_backend(now_s: float, groups: Iterable[int | None], chosen: int | None) -> None:
    """Reserved from 100 to 200; Ann's and Ben's jobs take 10 s."""
    scene = Scene()
    for user_id, group_id in zip((ANN, BEN), groups, strict=True):
        scene.line.know(user_id, Share(group_id=group_id))
    jobs = [scene.queue(ANN), scene.queue(BEN)]
    choice = scene.line.next([Spot(1, reserved=Reserved(CLASS, 100_000, 200_000))], now_s)
    assert (choice and choice.seq) == (None if chosen is None else jobs[chosen])


def test_a_short_job_fills_the_time_before_a_reservation() -> None:
    """Ann's job would reach into it, Ben's second would not either."""
    scene = Scene()
    scene.queue(ANN, expected_s=60)
    scene.queue(BEN, expected_s=60)
    short = scene.queue(BEN, expected_s=5)
    spot = Spot(1, reserved=Reserved(CLASS, 100_000, 200_000))
    assert placed(scene.line.next([spot], 90.0))[0] == short
    assert placed(scene.line.next([spot, Spot(2)], 90.0)) == (1, 2)


@pytest.mark.parametrize(
    ("work_s", "load_s", "chosen"),
    [({1: 9.0, 2: 9.0}, 2.0, None), ({1: 9.0, 2: 5.0}, 2.0, 2), ({1: 7.0, 2: 5.0}, 2.0, 2), ({2: 60.0}, 1.0, 1)],
)
def test_what_fits_before_a_reservation_is_known_of_each_card(
    work_s: dict[int, float], load_s: float, chosen: int | None
) -> None:
    """Ann's job has 10 s, of them what it has to load; a card of which nothing is known counts as the mean, 8 s."""
    scene = Scene()
    scene.queue(ANN, FLUX, expected_s=8.0, work_s=work_s)
    held = Reserved(CLASS, 100_000, 200_000)
    spots = [Spot(key, load_s={"flux": load_s}, reserved=held) for key in (1, 2)]
    choice = scene.line.next(spots, 90.0 + (1.0 if load_s == 2.0 else 0.0))
    assert (choice and choice.spot) == chosen


def test_who_gets_the_slow_card_is_charged_what_it_takes_there() -> None:
    """While the job runs; in the end what it took."""
    scene = Scene()
    for spot, charged_s in ((1, 40.0), (2, 5.0), (3, 10.0)):
        scene.queue(ANN, work_s={1: 40.0, 2: 5.0})
        before_s = scene.line._index.users[ANN].virtual_s
        choice = scene.place(Spot(spot))
        assert choice is not None and scene.line._index.users[ANN].virtual_s - before_s == charged_s
        scene.line.ended(choice.seq, 0.0)


def test_who_joins_the_group_may_use_it() -> None:
    scene = Scene()
    job = scene.queue(ANN)
    spot = Spot(1, reserved=Reserved(CLASS, 100_000, 200_000))
    assert scene.line.next([spot], 150.0) is None
    scene.line.know(ANN, Share(group_id=CLASS))
    assert placed(scene.line.next([spot], 150.0))[0] == job


def test_fifo_is_by_age_alone() -> None:
    scene = Scene(Policy("fifo"))
    jobs = [
        scene.queue(ANN, FLUX, lane=Lane.BATCH), scene.queue(ANN, WAN, number=-1),
        scene.queue(ANN, WAN, priority=5), scene.queue(BEN, WAN),
    ]  # fmt: skip
    assert [scene.run(Spot(1, HAS_WAN)) for _ in jobs] == jobs


def test_turns_are_by_who_was_served_longest_ago() -> None:
    """However long their jobs take."""
    scene = Scene(Policy("turns"))
    owners = {scene.queue(user): user for _ in range(3) for user in (ANN, ANN, BEN, CAT)}
    had = []
    for _ in range(6):
        choice = scene.place()
        assert choice is not None
        had.append(owners[choice.seq])
        scene.line.ended(choice.seq, 1000.0 if had[-1] == ANN else 1.0)
    assert had == [ANN, BEN, CAT] * 2


def test_repeated_and_unknown_names_do_no_harm() -> None:
    scene = Scene()
    seq = scene.queue(ANN)
    job = scene.line.waiting(ANN)[0]
    scene.line.add(job)
    assert len(scene.line) == 1
    placed(scene.place())
    scene.line.add(job)
    assert len(scene.line) == 0 and seq not in scene.line
    scene.line.remove(seq)
    scene.line.change(seq, FLUX)
    assert scene.line.waiting(CAT) == []
    scene.line.ended(seq, 1.0)
    with pytest.raises(KeyError):
        scene.line.ended(99, 1.0)
    with pytest.raises(KeyError):
        scene.line.started(99, 1, 0.0)


def test_asking_twice_is_the_same() -> None:
    scene = Scene()
    scene.queue(ANN)
    scene.queue(BEN)
    assert scene.line.next([Spot(1)], 0) == scene.line.next([Spot(1)], 0)


def test_a_job_may_change_in_place() -> None:
    scene = Scene()
    first, second = scene.queue(ANN), scene.queue(ANN)
    scene.line.add(Waiting(second, ANN, -1.0, ANY, priority=1))
    assert scene.order(2) == [second, first]
