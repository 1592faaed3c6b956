"""A backend from which files of a user come home is no place for that user's jobs, and one for others'."""

import pytest

from backend_pool.books.shares import Reserved
from backend_pool.placement.values import Spot
from tests.backend_pool.placement.scene import ANN, BEN, FLUX, HAS_WAN, WAN, Scene, placed

ANNS, BOTHS = frozenset({ANN}), frozenset({ANN, BEN})
SOON = Reserved(7, 1_100_000, 1_200_000)


@pytest.mark.parametrize(
    ("spots", "chosen"),
    [
        ([Spot(1, closed=ANNS)], (2, 1)),
        ([Spot(1, closed=ANNS), Spot(2)], (1, 2)),
        ([Spot(1, closed=ANNS), Spot(2, closed=BOTHS)], (2, 1)),
        ([Spot(1, closed=ANNS), Spot(2, reserved=SOON)], (1, 2)),
        ([Spot(1, closed=BOTHS), Spot(2, reserved=SOON, closed=ANNS)], (2, 2)),
    ],
)
def test_whose_turn_it_is(spots: list[Spot], chosen: tuple[int, int]) -> None:
    """Ann's, where she may go; else nobody waits for her."""
    scene = Scene()
    scene.queue(ANN)
    scene.queue(BEN)
    assert placed(scene.place(*spots)) == chosen


def test_nobody_is_left() -> None:
    """Her job waits, and is first as soon as her files are home."""
    scene = Scene()
    ann = scene.queue(ANN)
    assert scene.place(Spot(1, closed=ANNS), Spot(2, closed=BOTHS)) is None
    scene.queue(BEN)
    assert placed(scene.place(Spot(1), Spot(2, closed=BOTHS))) == (ann, 1)


def test_nobody_is_pulled_forward_to_where_they_may_not_go() -> None:
    """It is Ben's turn, and the backend holds what Ann's job needs; her files are on their way home from it."""
    for closed, first in ((frozenset[int](), ANN), (ANNS, BEN)):
        scene = Scene()
        jobs = {BEN: scene.queue(BEN, FLUX), ANN: scene.queue(ANN, WAN)}
        choice = scene.line.next([Spot(1, HAS_WAN, closed=closed)], 0)
        assert choice is not None and choice.seq == jobs[first]
