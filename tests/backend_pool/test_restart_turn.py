"""Whose turn it is to restart, as a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_pool.backends.health import Health
from backend_pool.backends.restart_turn import Place, Stage, due, stage, stopped
from backend_pool.model import Backend

UP, DOWN, SUSPECT, JOINING = Health.UP, Health.DOWN, Health.SUSPECT, Health.JOINING
WAITING, AWAY, LOST = Stage.WAITING, Stage.RESTARTING, Stage.LOST


@pytest.mark.parametrize(
    ("asked", "told", "now", "found"),
    [
        (0, 0, 100, Stage.NONE),
        (0, 50, 100, Stage.NONE),
        (60, 50, 100, WAITING),
        (60, 60, 100, AWAY),
        (60, 70, 70 + 5000, AWAY),
        (60, 70, 70 + 5001, LOST),
    ],
)
def test_how_far_a_restart_is(asked: int, told: int, now: int, found: Stage) -> None:
    row = Backend(name="a", url="http://a", source="worker", created_ms=1, restart_ms=asked, restarted_ms=told)
    assert stage(row, now, 5.0) is found


@pytest.mark.parametrize(
    ("places", "turns"),
    [
        ([], set()),
        ([(1, 7, WAITING, UP)], {1}),
        ([(1, 7, WAITING, SUSPECT)], {1}),
        ([(2, 7, WAITING, UP), (1, 7, WAITING, UP)], {1}),
        ([(1, 7, AWAY, DOWN), (2, 7, WAITING, UP)], set()),
        ([(1, 7, AWAY, UP), (2, 7, WAITING, UP)], set()),
        ([(1, 7, LOST, DOWN), (2, 7, WAITING, UP)], set()),
        ([(1, 7, WAITING, UP), (2, 7, WAITING, SUSPECT)], set()),
        ([(1, 7, WAITING, UP), (2, 7, WAITING, JOINING)], set()),
        ([(1, 7, WAITING, SUSPECT), (2, 7, WAITING, UP)], {1}),
        ([(1, 7, WAITING, UP), (2, 7, WAITING, DOWN)], {1}),
        ([(1, 7, WAITING, UP), (2, 8, WAITING, UP)], {1, 2}),
        ([(1, 7, AWAY, DOWN), (2, 8, WAITING, UP)], {2}),
        ([(1, 7, WAITING, Health.ASLEEP), (2, 7, WAITING, UP)], {2}),
    ],
)
def test_whose_turn_it_is(places: list[tuple[int, int, Stage, Health]], turns: set[int]) -> None:
    assert due(Place(*place) for place in places) == turns


def test_a_batch_stops_where_one_is_lost() -> None:
    places = [Place(1, 7, LOST, DOWN), Place(2, 7, WAITING, UP), Place(3, 8, AWAY, DOWN)]
    assert stopped(places) == {7}


PLACES = st.lists(
    st.builds(
        Place,
        key=st.integers(1, 6),
        batch=st.integers(1, 2),
        stage=st.sampled_from([WAITING, AWAY, LOST]),
        health=st.sampled_from(list(Health)),
    ),
    max_size=6,
    unique_by=lambda place: place.key,
)


@given(PLACES)
def test_never_two_of_a_batch_at_once(places: list[Place]) -> None:
    turns = due(places)
    for batch in (1, 2):
        mine = [place for place in places if place.batch == batch]
        gone = [place for place in mine if place.stage is not WAITING]
        assert len(gone) + sum(place.key in turns for place in mine) <= max(1, len(gone))
    assert all(place.stage is WAITING for place in places if place.key in turns)
