"""How much one worker token may do: so many workers, so many heartbeats, so many registrations in a row.

In memory, per process; one entry per token that counts.
"""

from collections.abc import Callable

from proxy.base.clock import monotonic_s
from proxy.base.errors import TooManyRequests

MAX_WORKERS = 64
"""Of one token."""
REGISTRATIONS, REGISTRATIONS_PER_S = 2.0 * MAX_WORKERS, 0.5
"""At once, and again: each one writes to the database and has the pool begin anew with a backend."""
BEATS = 4.0 * MAX_WORKERS


class Bucket:
    """Lets `burst` pass at once and `per_s` more every second, for each key."""

    def __init__(self, burst: float, per_s: float, clock: Callable[[], float] = monotonic_s) -> None:
        self._burst = burst
        self._per_s = per_s
        self._clock = clock
        self._levels: dict[int, tuple[float, float]] = {}

    def take(self, key: int, what: str) -> None:
        """Count one. Raises TooManyRequests, naming `what` there was too much of."""
        now = self._clock()
        level, at = self._levels.get(key, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._per_s)
        if level < 1:
            self._levels[key] = (level, now)
            wait_s = int((1 - level) / self._per_s) + 1
            raise TooManyRequests(f"Too many {what} with this token. Try again in {wait_s} seconds.")
        self._levels[key] = (level - 1, now)


class WorkerLimits:
    """Of all tokens. `heartbeat_s` is how often a worker is told to send one; twice as often passes."""

    def __init__(self, heartbeat_s: float) -> None:
        self.beats = Bucket(BEATS, 2 * MAX_WORKERS / heartbeat_s)
        self.registrations = Bucket(REGISTRATIONS, REGISTRATIONS_PER_S)
