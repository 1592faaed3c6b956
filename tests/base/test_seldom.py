"""One of many like events is let through, the others are counted."""

from proxy.base.seldom import CAPACITY, Seldom


class Clock:
    """Time that stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_of_a_kind_per_time() -> None:
    clock = Clock()
    seldom = Seldom(60.0, clock)
    assert [seldom.once("full") for _ in range(4)] == [0, None, None, None]
    assert seldom.once("gone") == 0
    clock.now += 59
    assert seldom.once("full") is None
    clock.now += 1
    assert [seldom.once("full"), seldom.once("full")] == [4, None]


def test_it_remembers_a_bounded_number() -> None:
    seldom = Seldom(60.0, Clock())
    assert [seldom.once(str(number)) for number in range(CAPACITY + 1)] == [0] * (CAPACITY + 1)
    assert seldom.once(str(CAPACITY)) is None
    assert seldom.once("0") == 0  # forgotten, so it counts as new
