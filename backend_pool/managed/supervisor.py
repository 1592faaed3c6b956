"""Decides what becomes of managed instances: desired against observed, within limits, without I/O and without a clock.

The shell tells what it sees of each (`Seen`), publishes the phases, and carries out the orders. An instance enters
STOPPING in one look and is ordered to stop in a later one, so that everybody who could give it a job has heard first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from backend_pool.backends.phase import Phase
from backend_pool.managed.fate import Fate

ENDED = "its process ended"
ENDED_EARLY = "its process ended while it started"
LEFT_IDLE_S = 2.0
"""One that has been idle for this long was given none of the jobs that wait, so it can run none of them."""


@dataclass(frozen=True)
class Limits:
    """`maximum` None: all; `idle_s` 0: what runs is never stopped and everything is started at once."""

    minimum: int = 0
    maximum: int | None = None
    idle_s: float = 0.0
    cooldown_s: float = 0.0
    """Between two times when some are woken because jobs wait: the first may do for those that come meanwhile."""
    start_timeout_s: float = 600.0


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a server knows of one instance's work. The defaults are what is assumed where nobody can say."""

    busy: bool = True
    idle_s: float | None = None
    """For how long it has had nothing to do."""
    wanted: bool = False
    """Whether a job waits that it could run, and that no other one is being started for."""
    known: bool = True
    """Whether it has ever told its nodes and models."""
    restart: bool = False
    """Whether somebody wants it started anew."""


@dataclass(frozen=True, kw_only=True)
class Seen(Facts):
    """With what whoever keeps its process observes."""

    alive: bool
    ready: bool = False
    """Whether it answers."""


class Verb(StrEnum):
    """start: it does not run; stop: its process is to be gone, by force if need be."""

    START = "start"
    STOP = "stop"


@dataclass(frozen=True)
class Order:
    """For the shell."""

    name: str
    verb: Verb


class Supervisor:
    """The instances of one keeper, by name. Call `look` again and again."""

    def __init__(self, limits: Limits, names: Iterable[str], now: float = 0.0) -> None:
        self.limits = limits
        self.fates = {name: Fate(since=now) for name in names}
        self._woken_at: float | None = None

    def look(self, seen: Mapping[str, Seen], now: float) -> list[Order]:
        """What has to be done; the fates have the new phases."""
        orders = [order for name, fate in self.fates.items() if (order := self._observe(name, fate, seen[name], now))]
        self._let_sleep(seen, now)
        orders += [Order(name, Verb.START) for name in self._wake(seen, now)]
        full = self._room() <= 0 and not self._leaving()
        for fate in self.fates.values():
            fate.full = full and fate.phase is Phase.ASLEEP
        return orders

    def failed(self, name: str, error: str, now: float) -> float:
        """An order to start could not be carried out; the pause before the next."""
        return self.fates[name].died(now, error)

    def _observe(self, name: str, fate: Fate, seen: Seen, now: float) -> Order | None:
        match fate.phase:
            case Phase.ASLEEP if seen.alive:  # of a former server
                fate.adopts(now)
            case Phase.STARTING:
                return self._starting(name, fate, seen, now)
            case Phase.RUNNING if not seen.alive:
                fate.died(now, ENDED)
            case Phase.RUNNING if seen.restart:
                fate.again = True
                fate.move(Phase.STOPPING, now)
            case Phase.STOPPING:
                return _stopping(name, fate, seen, now)
            case Phase.CRASHED if seen.alive:  # it hung, and is being ended
                return Order(name, Verb.STOP)
            case Phase.CRASHED if seen.restart:
                fate.retry_at = now
        return None

    def _starting(self, name: str, fate: Fate, seen: Seen, now: float) -> Order | None:
        if not seen.alive:
            fate.died(now, ENDED_EARLY)
        elif seen.ready:
            fate.runs(now)
        elif now - fate.since >= self.limits.start_timeout_s:
            fate.died(now, f"it did not answer within {self.limits.start_timeout_s:.0f} s of its start")
            return Order(name, Verb.STOP)
        return None

    def _let_sleep(self, seen: Mapping[str, Seen], now: float) -> None:
        """Those with nothing to do, the longest idle first, while more than the least number are awake."""
        awake = sum(fate.awake for fate in self.fates.values())
        idle = [name for name, fate in self.fates.items() if fate.phase is Phase.RUNNING and not seen[name].busy]
        surplus = max(-self._room(), int(self._crowded(seen, now)))
        for name in sorted(idle, key=lambda name: -(seen[name].idle_s or 0.0)):
            rested_s = self._rested_s(self.fates[name], seen[name], now)
            makes_room = surplus > 0 and rested_s >= LEFT_IDLE_S and not seen[name].wanted
            if makes_room or (awake > self.limits.minimum and self._may_sleep(seen[name], rested_s)):
                self.fates[name].move(Phase.STOPPING, now)
                awake -= 1
                surplus -= 1

    def _crowded(self, seen: Mapping[str, Seen], now: float) -> bool:
        """Whether jobs wait for one that has no room to wake, and nobody is making room yet."""
        waits = any(seen[name].wanted and self._startable(name, seen[name], now) for name in self.fates)
        return waits and not self._leaving() and self._room() <= 0

    def _leaving(self) -> bool:
        return any(fate.phase is Phase.STOPPING for fate in self.fates.values())

    def _rested_s(self, fate: Fate, seen: Seen, now: float) -> float:
        return 0.0 if seen.idle_s is None else min(seen.idle_s, now - fate.since)

    def _may_sleep(self, seen: Seen, rested_s: float) -> bool:
        return rested_s >= self.limits.idle_s > 0 and seen.known and not seen.wanted

    def _wake(self, seen: Mapping[str, Seen], now: float) -> list[str]:
        """Names to start, now STARTING: those to be restarted first, then what jobs wait for, then the least number."""
        room = self._room()
        rested = self._woken_at is None or now - self._woken_at >= self.limits.cooldown_s
        woken: list[str] = []
        down = [name for name in self.fates if self._startable(name, seen[name], now)]
        for name in sorted(down, key=lambda name: self._rank(name, seen[name])):
            if room <= 0:
                break
            if self._desired(name, seen[name], now, rested=rested):
                self.fates[name].starts(now)
                woken.append(name)
                room -= 1
        return woken

    def _room(self) -> int:
        most = len(self.fates) if self.limits.maximum is None else self.limits.maximum
        return most - sum(fate.awake for fate in self.fates.values())

    def _startable(self, name: str, seen: Seen, now: float) -> bool:
        fate = self.fates[name]
        return fate.phase in (Phase.ASLEEP, Phase.CRASHED) and now >= fate.retry_at and not seen.alive

    def _rank(self, name: str, seen: Seen) -> tuple[bool, bool, bool, int]:
        fate = self.fates[name]
        return (not fate.again, not seen.wanted, seen.known, fate.deaths)

    def _desired(self, name: str, seen: Seen, now: float, *, rested: bool) -> bool:
        awake = sum(fate.awake for fate in self.fates.values())
        if self.fates[name].again or not seen.known or self.limits.idle_s <= 0 or awake < self.limits.minimum:
            return True
        if not (seen.wanted and rested):
            if self.fates[name].phase is Phase.CRASHED and not seen.wanted:
                self.fates[name].move(Phase.ASLEEP, now)  # nobody needs it: it is tried again when somebody does
            return False
        self._woken_at = now
        return True


def _stopping(name: str, fate: Fate, seen: Seen, now: float) -> Order | None:
    if not seen.alive:
        fate.sleeps(now)
        return None
    if not seen.busy:
        return Order(name, Verb.STOP)
    if not fate.again:  # it was given a job just before
        fate.stays()
    return None
