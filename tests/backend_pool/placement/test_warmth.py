"""Where a job goes, and when a warm one is pulled forward, by small scenes."""

import pytest

from backend_pool.books.share import Share
from backend_pool.placement.values import Choice, Kind, Spot
from tests.backend_pool.placement.scene import (
    ANN,
    BEN,
    CAT,
    EVERYWHERE,
    FLUX,
    HAS_FLUX,
    HAS_WAN,
    WAN,
    Scene,
    placed,
)


def behind(scene: Scene, seconds: float) -> None:
    """Both have had something; Ben so many seconds more than Ann. Each has a job queued before, so nobody is new."""
    for user in (ANN, BEN):
        scene.line.know(user, Share(running_limit=9))
        scene.queue(user, number=9)
        scene.queue(user)
    for used_s in (10.0, 10.0 + seconds):
        scene.run(used_s=used_s)


@pytest.mark.parametrize(("seconds", "pulled"), [(0.0, True), (15.0, True), (15.5, False)])
def test_a_warm_job_is_pulled_forward_within_bounds(seconds: float, pulled: bool) -> None:
    """Ann's turn, but the backend holds what Ben's job needs, who had at most 15 s more."""
    scene = Scene()
    behind(scene, seconds)
    cold, warm = scene.queue(ANN, FLUX), scene.queue(BEN, WAN)
    choice = scene.line.next([Spot(1, HAS_WAN, load_s={"wan": 20.0})], 0)
    assert choice == (Choice(warm, 1, "warm", 20.0, cold) if pulled else Choice(cold, 1))


def test_nobody_is_passed_over_for_longer_than_that() -> None:
    """Ben's warm jobs cost nothing, so only the clock ends it."""
    scene = Scene()
    behind(scene, 0.0)
    cold = scene.queue(ANN, FLUX)
    warm = [scene.queue(BEN, WAN) for _ in range(9)]
    assert [scene.run(Spot(1, HAS_WAN), used_s=0.001) for _ in range(3)] == warm[:3]
    scene.now_s += 15.0
    assert scene.run(Spot(1, HAS_WAN)) == cold


def test_a_warm_turn_is_no_pull() -> None:
    scene = Scene()
    job = scene.queue(ANN, FLUX)
    choice = scene.line.next([Spot(1), Spot(2, HAS_FLUX, load_s={"flux": 30.0})], 0)
    assert choice == Choice(job, 2, "turn", 30.0)


def test_nobody_is_pulled_ahead_of_a_newcomer_but_a_newcomer() -> None:
    scene = Scene()
    scene.queue(ANN, WAN)
    scene.queue(ANN, WAN, number=1)
    scene.run(used_s=0)
    new = scene.queue(BEN, FLUX)
    assert placed(scene.line.next([Spot(1, HAS_WAN)], 0))[0] == new
    newer = scene.queue(CAT, WAN)
    assert placed(scene.line.next([Spot(1, HAS_WAN)], 0))[0] == newer


def test_an_own_earlier_job_is_not_passed_for_warmth() -> None:
    scene = Scene()
    first, _ = scene.queue(ANN, FLUX), scene.queue(ANN, WAN)
    assert placed(scene.line.next([Spot(1, HAS_WAN)], 0))[0] == first


@pytest.mark.parametrize(
    ("spots", "chosen", "why"),
    [
        ([Spot(1), Spot(2, HAS_FLUX)], 2, "the model is there"),
        ([Spot(1, HAS_WAN), Spot(2)], 2, "the other's model is needed by somebody"),
        ([Spot(1, frozenset({"old"})), Spot(2, HAS_WAN)], 1, "nobody needs that one"),
        ([Spot(1, HAS_FLUX), Spot(2, HAS_FLUX, ANN, "portrait")], 2, "her workflow is cached there"),
        ([Spot(1, HAS_FLUX), Spot(2, HAS_FLUX, BEN, "portrait")], 1, "another's cache is of no use"),
        ([Spot(1, HAS_FLUX), Spot(2, HAS_FLUX, ANN, "landscape")], 1, "nor another workflow's"),
        ([Spot(1, HAS_FLUX, failed=1), Spot(2, HAS_FLUX)], 2, "it loses jobs"),
        ([Spot(1, HAS_FLUX, done=5), Spot(2, HAS_FLUX, done=4)], 2, "work spreads"),
        ([Spot(1, HAS_FLUX), Spot(3, HAS_FLUX, done=9)], 3, "it is faster"),
        ([Spot(2), Spot(1)], 1, "always the same one"),
    ],
)
def test_where_a_job_goes(spots: list[Spot], chosen: int, why: str) -> None:
    scene = Scene()
    ann = scene.queue(ANN, FLUX, graph="portrait", work_s={1: 10.0, 2: 10.0, 3: 4.0})
    scene.queue(BEN, WAN, number=1)
    assert placed(scene.line.next(spots, 0)) == (ann, chosen), why


def test_where_a_job_was_lost_is_the_last_choice_and_a_choice() -> None:
    """Another idle one, cold and slower; else that one, before a later job of its user's."""
    scene = Scene()
    lost = scene.queue(ANN, FLUX, avoid=frozenset({1, 2}), work_s={3: 99.0})
    scene.queue(ANN, FLUX)
    worse = Spot(3, HAS_WAN, failed=3, done=9)
    assert placed(scene.line.next([Spot(1, HAS_FLUX), worse], 0)) == (lost, 3)
    assert placed(scene.line.next([Spot(1), Spot(2, HAS_FLUX)], 0)) == (lost, 2)


def test_half_of_the_models_is_better_than_none() -> None:
    scene = Scene()
    scene.queue(ANN, Kind(EVERYWHERE, frozenset({"flux", "style"})))
    took = {"style": 1.0}
    spots = [Spot(1, load_s=took), Spot(2, frozenset({"style"}), load_s=took), Spot(3, HAS_FLUX, load_s=took)]
    assert placed(scene.line.next(spots, 0))[1] == 3
