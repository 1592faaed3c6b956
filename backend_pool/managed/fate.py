"""One managed instance's phase and history, as a value that its supervisor changes. Times are monotonic seconds."""

from dataclasses import dataclass

from backend_pool.backends.phase import Phase

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
STEADY_S = 60.0
"""An instance that has run this long is well again: its next death is the first."""


@dataclass
class Fate:
    """What became of one instance."""

    phase: Phase = Phase.ASLEEP
    since: float = 0.0
    before: float = 0.0
    """Since when it was in the phase before."""
    deaths: int = 0
    """In a row."""
    crashes: int = 0
    """In all."""
    retry_at: float = 0.0
    error: str | None = None
    adopted: bool = False
    """Whether its process was found, not started."""
    again: bool = False
    """Whether it is stopped in order to be started anew."""
    full: bool = False
    """Whether it sleeps because no more may be awake and nobody makes room."""

    @property
    def awake(self) -> bool:
        """Whether it takes one of the places that there are; a crashed one leaves its place to others."""
        return self.phase in (Phase.STARTING, Phase.RUNNING, Phase.STOPPING)

    def move(self, phase: Phase, now: float) -> None:
        """Enter a phase."""
        self.phase, self.since, self.before = phase, now, self.since

    def starts(self, now: float) -> None:
        """It is being started."""
        self.again = self.adopted = False
        self.move(Phase.STARTING, now)

    def adopts(self, now: float) -> None:
        """Its process runs already."""
        self.starts(now)
        self.adopted = True

    def runs(self, now: float) -> None:
        """It answers."""
        self.error = None
        self.move(Phase.RUNNING, now)

    def stays(self) -> None:
        """It is not stopped after all: it has run all the while, and what it answered meanwhile counts."""
        self.phase, self.since = Phase.RUNNING, self.before

    def sleeps(self, now: float) -> None:
        """It was stopped, as it should be."""
        self.deaths, self.error = 0, None
        self.move(Phase.ASLEEP, now)

    def died(self, now: float, error: str) -> float:
        """Count a death; the pause before the next start, none after a long life."""
        if self.phase is Phase.RUNNING and now - self.since >= STEADY_S:
            self.deaths = 0
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self.deaths - 1)) if self.deaths else 0.0
        self.crashes += 1
        self.deaths, self.error, self.retry_at = self.deaths + 1, error, now + pause_s
        self.move(Phase.CRASHED, now)
        return pause_s
