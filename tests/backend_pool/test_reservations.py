"""Reservations: who has a backend when, what is refused, and what changed labels do."""

from typing import Any

import pytest

from backend_pool.books import reservations
from backend_pool.books.keeper import BooksKeeper
from backend_pool.books.tables import Reservation
from proxy.base.clock import now_ms
from proxy.base.database import Database
from proxy.base.errors import BadInput, Conflict, NotFound
from tests.backend_pool.test_books import DAY_MS, HOUR_MS, backends, keeper

__all__ = ["keeper"]


async def test_a_backend_is_reserved_once(db: Database, keeper: BooksKeeper) -> None:
    """By name, id or label; the time between counts, its end does not."""
    await backends(db)
    await keeper.add("class", {})
    begin = now_ms() + HOUR_MS
    ahead = {"begin_ms": begin, "end_ms": begin + HOUR_MS}
    row = await keeper.reserve("class", ["gpu-1", "3"], ahead)
    assert row.backends == [1, 3]
    for taken in (["gpu-3"], ["2", "1"]):
        with pytest.raises(Conflict, match=f"reservation {row.id}: gpu-"):
            await keeper.reserve("class", taken, ahead)
    with pytest.raises(Conflict):
        await keeper.reserve("class", [], {**ahead, "labels": ["room=3"]})
    await keeper.reserve("class", [], {**ahead, "labels": ["fast"]})
    await keeper.reserve("class", ["gpu-1"], {"begin_ms": begin + HOUR_MS, "end_ms": begin + 2 * HOUR_MS})
    groups = keeper.groups
    found = groups.reserved(1, ["room=3"], now_ms())
    assert found is not None and (found.begin_ms, found.end_ms) == (begin, begin + HOUR_MS)
    assert groups.reserved(1, [], begin + HOUR_MS) is not None, "the next one"
    assert groups.reserved(1, [], begin + 2 * HOUR_MS) is None
    assert groups.reserved(9, ["fast", "room=4"], begin) is not None, "by label, whatever backend it is"
    assert groups.reserved(2, [], begin) is None
    await keeper.unreserve(row.id or 0)
    assert groups.reserved(3, [], begin) is None


YEAR_9999 = 253_402_214_400_000
FAR = {"begin_ms": YEAR_9999, "end_ms": YEAR_9999 + DAY_MS}
"""What can be stored must be one that pages can show as a date."""


async def test_reservations_that_make_no_sense(db: Database, keeper: BooksKeeper) -> None:
    await backends(db)
    await keeper.add("class", {})
    now = now_ms()
    wish: dict[str, Any] = {"begin_ms": now, "end_ms": now + HOUR_MS}
    for bad in ({"end_ms": now}, {"begin_ms": now - DAY_MS, "end_ms": now - 1}, {"end_ms": now + 32 * DAY_MS}, FAR):
        with pytest.raises(BadInput):
            await keeper.reserve("class", ["1"], wish | bad)
    with pytest.raises(BadInput):
        await keeper.reserve("class", [], wish)
    for group, where in (("class", ["gpu-9"]), ("nobody", ["gpu-1"])):
        with pytest.raises(NotFound):
            await keeper.reserve(group, where, wish)
    with pytest.raises(NotFound):
        await keeper.unreserve(5)


def test_the_older_of_two_that_overlap_by_label_counts() -> None:
    """Labels can change after a reservation was made."""
    rows = [
        Reservation(id=2, group_id=2, backends=[], labels=["a"], begin_ms=0, end_ms=100),
        Reservation(id=1, group_id=1, backends=[], labels=["b"], begin_ms=50, end_ms=150),
    ]
    found = [reservations.reserved(rows, 1, ["a", "b"], moment) for moment in (0, 60, 120, 150)]
    assert [one and one.group_id for one in found] == [2, 1, 1, None]
