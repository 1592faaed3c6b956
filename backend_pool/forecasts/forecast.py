"""What each waiting job may expect: the real line played forward with learned times. Pure, runs in a thread.

What a job takes is known for workflows that ran before or are like such; where a backend's job has no known end,
nothing that follows on it has a known start. Bounded: at most STARTS jobs are played, the rest goes on at its users'
pace.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count

from backend_pool.forecasts.outlook import Outlook, far_back, words
from backend_pool.forecasts.scene import Case, Scene, Seat
from backend_pool.forecasts.standings import Standings
from backend_pool.placement.values import Spot, Waiting

STARTS = 1000
UNKNOWN_S = 10.0
"""What a job of unknown length is played with; nobody is told a time that rests on it."""
NOBODY = frozenset[int]()
STAND_IN = 2**62
"""Numbers from here are jobs beyond the window, of which only how many there are is known."""


@dataclass(frozen=True)
class Forecast:
    """What came out, by job."""

    outlooks: Mapping[int, Outlook] = field(default_factory=dict)
    order: Sequence[int] = ()
    """Waiting jobs in the order of their starts."""
    by_user: Mapping[int, Sequence[Outlook]] = field(default_factory=dict)
    """The jobs of each user in that order, with those beyond the window."""

    def of_rank(self, user_id: int, rank: int) -> Outlook | None:
        """The job that has so many of its user's before it; one that was not played goes on at the pace of those."""
        known = self.by_user.get(user_id, ())
        if rank < len(known):
            return known[rank]
        if len(known) < 2:
            return None
        half = (len(known) - 1) // 2  # what comes first has more of others' jobs between
        first, last = known[half], known[-1]
        steps, more = len(known) - 1 - half, rank - len(known) + 1
        position = _further(first.position, last.position, steps, more)
        return Outlook(
            position=position,
            start_ms=_further(first.start_ms, last.start_ms, steps, more),
            end_ms=_further(first.end_ms, last.end_ms, steps, more),
            reason=last.reason if position is None else far_back(position - 1),
        )


@dataclass(frozen=True)
class _Start:
    job: Waiting
    start_s: float
    end_s: float
    start_known: bool
    end_known: bool


def foresee(scene: Scene) -> Forecast:
    """Play it forward."""
    starts = list(_Play(scene).starts())
    outlooks, order = dict(_running(scene)), []
    by_user: dict[int, list[Outlook]] = defaultdict(list)
    standings = Standings(scene)
    for ahead, start in enumerate(starts):
        job, mine = start.job, by_user[start.job.user_id]
        case = scene.cases.get(job.seq)
        outlook = Outlook(
            position=ahead + 1,
            start_ms=round(start.start_s * 1000) if start.start_known else None,
            end_ms=round(start.end_s * 1000) if start.end_known else None,
            reason=case.note if case and case.note else words(standings.of(job, case, ahead, len(mine))),
        )
        mine.append(outlook)
        if job.seq < STAND_IN:
            outlooks[job.seq] = outlook
            order.append(job.seq)
    found = Forecast(outlooks, order, by_user)
    ranks = _ranks(scene) if len(starts) >= STARTS else {}
    for seq, case in scene.cases.items():
        if seq not in outlooks:  # it comes after all that were played, or cannot run as things are
            far = None if case.note or seq not in ranks else found.of_rank(case.job.user_id, ranks[seq])
            outlooks[seq] = far or Outlook(reason=case.note or words(standings.of(case.job, case, 0, 0)))
    return found


def _ranks(scene: Scene) -> dict[int, int]:
    """How many of its user's jobs come before each."""
    before: Counter[int] = Counter()
    ranks = {}
    for case in sorted(scene.cases.values(), key=lambda case: (-case.job.priority, case.job.number, case.job.seq)):
        ranks[case.job.seq] = before[case.job.user_id]
        before[case.job.user_id] += 1
    return ranks


class _Play:
    """The line and the backends from now on."""

    def __init__(self, scene: Scene) -> None:
        self._line = scene.line
        self._line.keep(scene.cases)
        self._now_s = scene.now_s
        self._cases = dict(scene.cases)
        self._tails = dict(scene.tails)
        self._free: dict[int, Spot] = {}
        self._vague: set[int] = set()
        self._numbers = count(STAND_IN)
        self._ticks = count()
        self._events: list[tuple[float, int, Spot | None, int | None, float]] = []
        """When, a tie breaker, the backend that is free then, the job it ran, and for how long."""
        for seat in scene.seats:
            self._place(seat)

    def starts(self) -> Iterator[_Start]:
        """The jobs that wait now, in the order in which they start."""
        for _ in range(STARTS):
            while (choice := self._line.next(self._free.values(), self._now_s) if self._free else None) is None:
                if not self._events or not len(self._line):
                    return
                self._advance()
            yield self._start(choice.seq, self._free.pop(choice.spot))

    def _place(self, seat: Seat) -> None:
        spot = replace(seat.spot, closed=NOBODY)  # files come home in no time that anybody knows
        if seat.state == "idle":
            self._free[spot.key] = spot
        elif seat.state != "away" or seat.seq is not None:  # a draining one takes no other job
            if seat.free_s is None:
                self._vague.add(spot.key)
            free_s = self._now_s + UNKNOWN_S if seat.free_s is None else seat.free_s
            self._push(free_s, None if seat.state == "away" else spot, seat.seq, seat.used_s)
        if spot.reserved is not None:  # moments at which somebody may start, or must not any more
            self._push(spot.reserved.begin_ms / 1000, None, None, 0.0)
            self._push(spot.reserved.end_ms / 1000, None, None, 0.0)

    def _push(self, when_s: float, spot: Spot | None, seq: int | None, used_s: float) -> None:
        heappush(self._events, (max(when_s, self._now_s), next(self._ticks), spot, seq, used_s))

    def _advance(self) -> None:
        self._now_s, _, spot, seq, used_s = heappop(self._events)
        if spot is not None:
            self._free[spot.key] = spot
        if seq is not None:
            with suppress(KeyError):  # the line was not told of it: it was taken up after a restart
                self._line.ended(seq, used_s)

    def _start(self, seq: int, spot: Spot) -> _Start:
        case = self._cases[seq]
        job = case.job
        work_s = case.work_s.get(spot.key)
        load_s = sum(spot.load_s.get(model, 0.0) for model in job.kind.models - spot.warm)
        took_s = load_s + (UNKNOWN_S if work_s is None else work_s)
        known = spot.key not in self._vague
        if work_s is None:
            self._vague.add(spot.key)
        self._line.started(seq, spot.key, self._now_s)
        warm = spot.warm if job.kind.models <= spot.warm else job.kind.models
        after = replace(spot, warm=warm, user_id=job.user_id, graph=job.graph)
        self._push(self._now_s + took_s, after, seq, took_s)
        self._refill(case)
        return _Start(job, self._now_s, self._now_s + took_s, known, known and work_s is not None)

    def _refill(self, like: Case) -> None:
        """A job of the user's from beyond the window moves up: like the one that started, and after all known ones."""
        user_id = like.job.user_id
        if self._tails.get(user_id, 0) <= 0:
            return
        self._tails[user_id] -= 1
        last = max([like.job, *self._line.waiting(user_id)], key=lambda job: (-job.priority, job.number, job.seq))
        seq = next(self._numbers)
        job = replace(like.job, seq=seq, number=last.number, priority=last.priority)
        self._cases[seq] = replace(like, job=job)
        self._line.add(job)


def _running(scene: Scene) -> Iterator[tuple[int, Outlook]]:
    for seat in scene.seats:
        if seat.seq is not None and seat.free_s is not None:
            yield seat.seq, Outlook(end_ms=round(seat.free_s * 1000))


def _further(first: int | None, last: int | None, steps: int, more: int) -> int | None:
    return None if first is None or last is None else round(last + (last - first) / steps * more)
