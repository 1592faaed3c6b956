"""Counting of failures: per key, within a window, bounded."""

import pytest

from proxy.throttle import Throttle, Throttled, address_key


class Clock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_refuses_after_the_limit_until_the_window_moved_on() -> None:
    clock = Clock()
    throttle = Throttle(3, 60.0, clock=clock)
    for _ in range(3):
        throttle.take("a", "tries")
        clock.now_s += 10
    with pytest.raises(Throttled, match="Too many tries") as caught:
        throttle.take("a", "tries")
    assert caught.value.retry_after_s == 31
    assert caught.value.status == 429
    throttle.take("b", "tries")
    clock.now_s += 31
    throttle.take("a", "tries")
    with pytest.raises(Throttled):
        throttle.take("a", "tries")


def test_success_gives_the_attempt_back() -> None:
    throttle = Throttle(1, 60.0)
    for _ in range(5):
        throttle.take("a", "tries")
        throttle.give_back("a")
    assert len(throttle) == 0
    throttle.give_back("never taken")


def test_is_bounded_and_forgets_the_longest_untouched() -> None:
    throttle = Throttle(1, 60.0, capacity=3)
    for key in ("a", "b", "c", "d"):
        throttle.count(key)
    assert len(throttle) == 3
    assert throttle.wait_s("a") == 0
    assert throttle.wait_s("d") > 0


@pytest.mark.parametrize(
    ("client", "key"),
    [
        (("10.0.0.1", 1), "10.0.0.1"),
        (("::ffff:10.0.0.1", 1), "10.0.0.1"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1), "fe80::/64"),
        (("testclient", 1), "testclient"),
        (("x" * 500, 1), "x" * 64),
        (None, "local"),
    ],
)
def test_whom_an_address_counts_for(client: tuple[str, int] | None, key: str) -> None:
    assert address_key({"type": "http", "client": client}) == key
