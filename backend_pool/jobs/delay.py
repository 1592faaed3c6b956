"""How long a job has held a backend up through nothing that its user did: turns do not charge that. Pure but a clock.

Several causes at a time count once.
"""

from collections.abc import Callable
from enum import StrEnum

from proxy.base.clock import monotonic_s


class Cause(StrEnum):
    """What it waits for."""

    AWAY = "the backend does not answer"
    QUEUED = "the backend has other prompts before it"
    DATABASE = "the database does not take what is to be written"


class Delay:
    """Saying twice that a cause is there, or is gone, does nothing."""

    def __init__(self, clock: Callable[[], float] = monotonic_s) -> None:
        self._clock = clock
        self._causes: set[Cause] = set()
        self._since_s = 0.0
        self._before_s = 0.0

    @property
    def seconds(self) -> float:
        """All of it until now."""
        return self._before_s + (self._clock() - self._since_s if self._causes else 0.0)

    def begin(self, cause: Cause) -> None:
        """It has to wait for this."""
        if not self._causes:
            self._since_s = self._clock()
        self._causes.add(cause)

    def end(self, cause: Cause) -> None:
        """Not for this any more."""
        self._before_s = self.seconds
        self._since_s = self._clock()
        self._causes.discard(cause)
