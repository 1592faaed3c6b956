"""What workflows did to backends, and for how long it is held against them."""

import pytest

from backend_pool.runs import harms
from backend_pool.runs.harms import KEPT, KEPT_S, Harms
from backend_pool.runs.ladder import KILLS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The moment it is, to be changed."""
    now = [1000.0]
    monkeypatch.setattr(harms, "monotonic_s", lambda: now[0])
    return now


def test_a_workflow_that_broke_so_many_is_barred_for_an_hour(clock: list[float]) -> None:
    """That user's alone; what only lost its backend is charged from the second time on, and barred never."""
    known = Harms()
    for _ in range(KILLS):
        assert not known.barred(1, "a")
        known.note(1, "a", broke=True)
        known.note(2, "a", broke=False)
    assert known.barred(1, "a") and known.repeated(1, "a")
    assert known.repeated(2, "a") and not known.barred(2, "a")
    assert not known.repeated(1, "b") and not known.barred(3, "a")
    clock[0] += KEPT_S
    assert not known.barred(1, "a") and not known.repeated(2, "a")


def test_success_shows_that_it_was_not_its_doing(clock: list[float]) -> None:
    known = Harms()
    known.note(1, "a", broke=True, times=KILLS)
    assert known.barred(1, "a")
    known.succeeded(1, "a")
    known.succeeded(1, "never heard of")
    assert not known.barred(1, "a") and not known.repeated(1, "a")


def test_it_is_bounded_and_knows_no_unknown_graphs(clock: list[float]) -> None:
    """What was noted longest ago goes."""
    known = Harms()
    known.note(1, "", broke=True, times=KILLS)
    assert not known.barred(1, "")
    for number in range(KEPT + 1):
        known.note(1, f"g{number}", broke=True, times=99)
    assert not known.barred(1, "g0") and known.barred(1, "g1")
