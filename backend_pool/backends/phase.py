"""What one managed instance is doing, as its keeper sees it and as pool, pages and an agent's heartbeats tell it."""

from dataclasses import dataclass
from enum import StrEnum

from backend_pool.backends.health import Health


class Phase(StrEnum):
    """asleep: stopped, starts when a job needs it; starting: its process runs, it does not answer yet; running;
    stopping: gets no new job and ends; crashed: it ended, or did not start, and is tried again after a pause."""

    ASLEEP = "asleep"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    CRASHED = "crashed"


@dataclass(frozen=True)
class ManagedState:
    """`since_ms`, `retry_ms`: milliseconds since the epoch; `retry_ms` is when a crashed one is tried again."""

    state: Phase
    since_ms: int
    error: str | None = None
    deaths: int = 0
    retry_ms: int | None = None
    adopted: bool = False
    """Whether it was found running, so that nobody here has seen it come up."""
    full: bool = False
    """Whether no more may be awake, so that it sleeps on whoever waits for it."""

    def says_as(self, other: "ManagedState | None") -> bool:
        """Whether it is no news: moments are reckoned anew each time it is told, and differ a little."""
        return other is not None and self._news() == other._news()

    def _news(self) -> tuple[object, ...]:
        return self.state, self.error, self.deaths, self.full

    @property
    def health(self) -> Health | None:
        """The health that follows without asking it; None while it has to be asked."""
        return HEALTH[self.state]

    @property
    def gone(self) -> bool:
        """Whether its process is known not to run: a job it had has to go elsewhere, now."""
        return self.state in (Phase.ASLEEP, Phase.CRASHED)

    @property
    def words(self) -> str | None:
        """Why it gets no job, for people; None when it is asleep or running and all is well."""
        match self.state:
            case Phase.STARTING:
                return "it is starting"
            case Phase.STOPPING:
                return "it is stopping"
            case Phase.CRASHED:
                return f"it has crashed and is started again after a pause: {self.error}"
            case _:
                return self.error


HEALTH = {
    Phase.ASLEEP: Health.ASLEEP,
    Phase.STARTING: Health.JOINING,
    Phase.RUNNING: None,
    Phase.STOPPING: Health.SUSPECT,
    Phase.CRASHED: Health.DOWN,
}
