"""Counting of failures: per key, within a window, bounded."""

import asyncio

import pytest

from proxy.access import throttle as throttle_module
from proxy.access.throttle import Throttle, Throttled, address_key
from proxy.base.errors import Unavailable


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


async def test_only_failures_count() -> None:
    throttle = Throttle(1, 60.0)
    for _ in range(5):
        async with throttle.attempt("a", "tries") as attempt:
            attempt.fine = True
    assert len(throttle) == 0
    async with throttle.attempt("a", "tries"):
        pass
    with pytest.raises(Throttled):
        async with throttle.attempt("a", "tries"):
            pytest.fail("the limit was reached")


async def test_an_attempt_that_raises_counts() -> None:
    throttle = Throttle(1, 60.0)
    with pytest.raises(ZeroDivisionError):
        async with throttle.attempt("a", "tries"):
            raise ZeroDivisionError
    assert throttle.wait_s("a") > 0


async def test_parallel_guesses_never_get_more_than_the_limit() -> None:
    throttle, begun = Throttle(3, 60.0), 0

    async def guess() -> None:
        nonlocal begun
        async with throttle.attempt("a", "tries"):
            begun += 1
            await asyncio.sleep(0)

    results = await asyncio.gather(*(guess() for _ in range(20)), return_exceptions=True)
    assert begun == 3
    assert sum(isinstance(result, Throttled) for result in results) == 17


async def test_parallel_good_attempts_wait_for_each_other_and_all_pass() -> None:
    throttle, under_way, most = Throttle(3, 60.0), 0, 0

    async def good() -> None:
        nonlocal under_way, most
        async with throttle.attempt("a", "tries") as attempt:
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1
            attempt.fine = True

    await asyncio.gather(*(good() for _ in range(20)))
    assert most == 3 and len(throttle) == 0


async def test_waiting_for_a_turn_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle_module, "TURN_TIMEOUT_S", 0.01)
    throttle = Throttle(1, 60.0)
    async with throttle.attempt("a", "tries") as attempt:
        with pytest.raises(Unavailable, match="Too many people"):
            async with throttle.attempt("a", "tries"):
                pytest.fail("there was no place")
        attempt.fine = True


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
