"""The ranking against a sorted dictionary, and its bound."""

from hypothesis import given, settings
from hypothesis import strategies as st

from backend_pool.placement.ranking import SLACK, Ranking

names = st.integers(0, 9)
deeds = st.lists(st.tuples(names, st.none() | st.integers(-3, 3)), max_size=60)


@settings(max_examples=100, deadline=None)
@given(deeds)
def test_it_is_a_sorted_dictionary(deeds: list[tuple[int, int | None]]) -> None:
    """Set, set again, set back, dropped: the order is that of the keys of now, each name once."""
    ranking, plain = Ranking(), dict[int, tuple[float, ...]]()
    for name, key in deeds:
        if key is None:
            ranking.drop(name)
            plain.pop(name, None)
        else:
            ranking.set(name, (key,))
            plain[name] = (key,)
        expected = sorted((key, name) for name, key in plain.items())
        assert list(ranking.in_order()) == expected
        assert ranking.first() == (expected[0] if expected else None)
        assert list(ranking.in_order()) == expected
        assert len(ranking) == len(plain) and all(name in ranking for name in plain)


def test_outdated_keys_are_forgotten() -> None:
    """One name set for ever does not grow the heap, nor do names that come and go."""
    ranking = Ranking()
    for moment in range(1000):
        ranking.set(1, (moment,))
        ranking.set(2 + moment, (0,))
        ranking.drop(2 + moment)
        assert len(ranking._heap) <= 2 + SLACK
    assert ranking.first() == ((999,), 1)


def test_a_copy_is_another() -> None:
    ranking = Ranking()
    ranking.set(1, (1,))
    twin = ranking.copy()
    twin.drop(1)
    twin.set(2, (0,))
    assert ranking.first() == ((1,), 1) and len(ranking) == 1
    ranking.drop(1)
    assert ranking.first() is None and list(twin.in_order()) == [((0,), 2)]
