"""What workflows did to backends, and for how long it is held against them."""

from dataclasses import replace

import pytest

from backend_pool.forecasts.signature import Traits, traits
from backend_pool.runs import harms
from backend_pool.runs.harms import KEPT, KEPT_S, Harms
from backend_pool.runs.ladder import KILLS
from tests.backend_pool.graphs import sampled

A, B = Traits("a1", makeup="a", whole="a2"), Traits("b1", makeup="b", whole="b2")


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
        assert not known.barred(1, A)
        known.note(1, A, broke=True)
        known.note(2, A, broke=False)
    assert known.barred(1, A) and known.repeated(1, A)
    assert known.repeated(2, A) and not known.barred(2, A)
    assert not known.repeated(1, B) and not known.barred(3, A)
    clock[0] += KEPT_S
    assert not known.barred(1, A) and not known.repeated(2, A)


def test_success_shows_that_it_was_not_its_doing(clock: list[float]) -> None:
    known = Harms()
    known.note(1, A, broke=True, times=KILLS)
    assert known.barred(1, A)
    known.succeeded(1, A)
    known.succeeded(1, B)
    assert not known.barred(1, A) and not known.repeated(1, A)


def test_another_text_that_succeeds_shows_nothing(clock: list[float]) -> None:
    """Nor what is not known of; what harms may be a text alone."""
    known = Harms()
    for text in range(KILLS):
        known.note(1, replace(A, whole=f"evil {text}"), broke=True)
        known.succeeded(1, replace(A, whole=f"fine {text}"))
        known.succeeded(1, replace(A, whole=""))
    assert known.barred(1, A)


def test_it_is_bounded_and_knows_no_unknown_graphs(clock: list[float]) -> None:
    """What was noted longest ago goes."""
    known = Harms()
    known.note(1, Traits(), broke=True, times=KILLS)
    assert not known.barred(1, Traits())
    for number in range(KEPT + 1):
        known.note(1, Traits(makeup=f"g{number}"), broke=True, times=99)
    assert not known.barred(1, Traits(makeup="g0")) and known.barred(1, Traits(makeup="g1"))


def test_other_ids_seeds_and_numbers_are_no_way_round(clock: list[float]) -> None:
    """What it is made of counts; a small one that succeeds does not clear the large ones."""
    prompt = sampled()
    renamed = {
        f"9{key}": {
            **node,
            "inputs": {
                name: [f"9{value[0]}", value[1]] if isinstance(value, list) else value
                for name, value in node["inputs"].items()
            },
        }
        for key, node in prompt.items()
    }
    ends = [key for key, node in prompt.items() if node["class_type"].startswith(("Save", "Preview"))]
    ways = [
        traits(prompt, ends),
        traits(renamed, [f"9{key}" for key in ends]),
        traits(sampled(seed=7), ends),
        traits(sampled(steps=41), ends),
    ]
    assert len({way.makeup for way in ways}) == 1 and len({way.graph for way in ways}) == 2
    known = Harms()
    for way in ways[:KILLS]:
        known.note(1, way, broke=True)
    known.succeeded(1, ways[3])
    assert all(known.barred(1, way) for way in ways)
    known.succeeded(1, ways[0])
    assert not known.barred(1, ways[1])
