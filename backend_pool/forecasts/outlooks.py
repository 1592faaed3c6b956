"""The latest forecast, for whoever shows jobs; made anew in a thread, seldom enough to cost little."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from backend_pool.forecasts.forecast import Forecast, foresee
from backend_pool.forecasts.outlook import Outlook
from backend_pool.forecasts.scene import Scene
from proxy.base.clock import monotonic_s

EVERY_S = 2.0
PART = 0.05
"""Of the time at most this part goes into forecasts, however long one takes."""
MOVED_MS = 2000
"""A moment that moved by less is the same to people."""
TOLD = 20
"""Jobs of one user that `of_user` gives; the next to end or to start come first."""


class Outlooks:
    """`on_change` rings with the users whose outlook is another than before."""

    def __init__(self) -> None:
        self.on_change: list[Callable[[set[int]], None]] = []
        self._forecast = Forecast()
        self._windows: Mapping[int, int] = {}
        self._told: Mapping[int, Sequence[tuple[int, Outlook]]] = {}
        self._due_s = 0.0

    @property
    def due_in_s(self) -> float:
        """When the next forecast may be made."""
        return max(0.0, self._due_s - monotonic_s())

    @property
    def order(self) -> Sequence[int]:
        """Everybody's waiting jobs in the order in which they are expected to start, as far as it was foreseen."""
        return self._forecast.order

    def of(self, seq: int, user_id: int, rank: int | None = None) -> Outlook | None:
        """What a job may expect. `rank`: how many of its user's waiting jobs come before it, for one far back."""
        known = self._forecast.outlooks.get(seq)
        if known is not None or rank is None or rank < self._windows.get(user_id, 0):
            return known
        return self._forecast.of_rank(user_id, rank)

    def of_user(self, user_id: int) -> Sequence[tuple[int, Outlook]]:
        """The user's first jobs with what they may expect, running ones before waiting ones."""
        return self._told.get(user_id, ())

    async def renew(self, scene: Scene, began_s: float | None = None) -> None:
        """Make a forecast and tell whom it concerns. One at a time; whoever calls waits for `due_in_s` before.

        `began_s` is when putting the scene together began, which costs time too.
        """
        began_s = monotonic_s() if began_s is None else began_s
        self._due_s = began_s + EVERY_S
        cases = list(scene.cases.values())
        users = {case.job.seq: case.job.user_id for case in cases}
        users |= {seat.seq: seat.user_id for seat in scene.seats if seat.seq is not None and seat.user_id is not None}
        forecast, told = await asyncio.to_thread(_foreseen, scene, users)
        took_s = monotonic_s() - began_s
        self._due_s = began_s + max(EVERY_S, took_s / PART)
        self._forecast = forecast
        self._windows = Counter(case.job.user_id for case in cases)
        changed = {user for user in self._told.keys() | told.keys() if _differ(self._told.get(user), told.get(user))}
        self._told = {user: told[user] if user in changed else self._told[user] for user in told}
        for heard in self.on_change if changed else ():
            heard(changed)


def _foreseen(scene: Scene, users: Mapping[int, int]) -> tuple[Forecast, dict[int, list[tuple[int, Outlook]]]]:
    forecast = foresee(scene)
    return forecast, _by_user(forecast, users)


def _by_user(forecast: Forecast, users: Mapping[int, int]) -> dict[int, list[tuple[int, Outlook]]]:
    found: dict[int, list[tuple[int, Outlook]]] = defaultdict(list)
    last = len(forecast.outlooks) + 1
    for seq, outlook in sorted(forecast.outlooks.items(), key=lambda item: (_turn(item[1], last), item[0])):
        mine = found[users[seq]]
        if len(mine) < TOLD:
            mine.append((seq, outlook))
    return found


def _turn(outlook: Outlook, last: int) -> int:
    if outlook.position is not None:
        return outlook.position
    return last if outlook.reason else 0  # what cannot run, and what runs


def _differ(old: Sequence[tuple[int, Outlook]] | None, new: Sequence[tuple[int, Outlook]] | None) -> bool:
    """Whether people would see a difference."""
    if old is None or new is None or len(old) != len(new):
        return True
    return any(a_seq != b_seq or _looks_other(a, b) for (a_seq, a), (b_seq, b) in zip(old, new, strict=True))


def _looks_other(old: Outlook, new: Outlook) -> bool:
    same = (old.position, old.reason) == (new.position, new.reason)
    return not same or _moved(old.start_ms, new.start_ms) or _moved(old.end_ms, new.end_ms)


def _moved(old: int | None, new: int | None) -> bool:
    return old is not new if old is None or new is None else abs(new - old) >= MOVED_MS
