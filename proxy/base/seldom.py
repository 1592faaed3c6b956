"""Lets one of many like events through to the log: what a full disk does to every request must not fill it further.

Bounded: with more than CAPACITY different keys, the one let through longest ago is forgotten.
"""

from collections import OrderedDict
from collections.abc import Callable

from proxy.base.clock import monotonic_s

CAPACITY = 256


class Seldom:
    """`once(key)` says whether to log it now, and how many were left out since."""

    def __init__(self, every_s: float, clock: Callable[[], float] = monotonic_s) -> None:
        self._every_s = every_s
        self._clock = clock
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def once(self, key: str) -> int | None:
        """The number of events of that key left out before this one; None when this one is to be left out, too."""
        now = self._clock()
        at, left_out = self._seen.get(key, (now - self._every_s, 0))
        if now - at < self._every_s:
            self._seen[key] = (at, left_out + 1)
            return None
        self._seen[key] = (now, 0)
        self._seen.move_to_end(key)
        if len(self._seen) > CAPACITY:
            self._seen.popitem(last=False)
        return left_out
