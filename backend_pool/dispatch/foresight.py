"""Makes forecasts out of the live queue and pool, now and then, beside the placing of jobs.

Puts the scene together at one moment of the event loop, so that it fits together; playing it forward is a thread's.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.backends.pool import Pool
from backend_pool.backends.waking import is_waking
from backend_pool.books.share import Share
from backend_pool.books.shares import Shares
from backend_pool.dispatch.matching import Matching
from backend_pool.dispatch.queue_mirror import QueueMirror
from backend_pool.dispatch.turns import Turns
from backend_pool.forecasts.estimates import Estimates
from backend_pool.forecasts.outlooks import Outlooks
from backend_pool.forecasts.scene import Case, Scene, Seat
from backend_pool.model import BackendMode, Job
from backend_pool.placement.values import NOWHERE, Waiting
from proxy.base.clock import monotonic_s, now_ms
from proxy.base.tasks import Tasks

CASES = 2000
"""Jobs that one forecast looks at singly, one of each user at least; of the others it knows how many there are."""


class Foresight:
    """One forecast at a time."""

    def __init__(
        self,
        pool: Pool,
        tasks: Tasks,
        *,
        turns: Turns,
        mirror: QueueMirror,
        matching: Matching,
        shares: Shares,
        estimates: Estimates,
        outlooks: Outlooks,
    ) -> None:
        self._pool = pool
        self._tasks = tasks
        self._turns = turns
        self._mirror = mirror
        self._matching = matching
        self._shares = shares
        self._estimates = estimates
        self._outlooks = outlooks
        self._words: dict[object, str] = {}
        """Of one scene: what jobs of one graph wait for, or why they cannot run."""
        self._making = False
        self._quiet = True

    def look(self) -> None:
        """Make a forecast as soon as one is due, if anything waits or runs; called after each round of placing."""
        members = self._pool.members.values()
        quiet = not len(self._mirror) and not any(member.job is not None for member in members)
        if self._making or (quiet and self._quiet):
            return
        self._quiet = quiet
        self._making = True
        self._tasks.start("forecast", self._make())

    async def _make(self) -> None:
        try:
            await asyncio.sleep(self._outlooks.due_in_s)
            began_s = monotonic_s()
            await self._outlooks.renew(self.scene(), began_s)
        finally:
            self._making = False

    def scene(self) -> Scene:
        """Everything as it is now."""
        self._estimates.forget()
        self._words.clear()
        line, now_s = self._turns.line.copy(), now_ms() / 1000
        members = list(self._pool.members.values())
        each = max(1, CASES // max(1, len(self._mirror.users)))
        cases = {case.job.seq: case for case in self._cases(members, each)}
        models = frozenset[str]().union(*(case.job.kind.models for case in cases.values()))
        seats = [self._seat(member, models, now_s) for member in members]
        for seq in self._turns.placed.keys() - {seat.seq for seat in seats}:
            line.ended(seq, 0.0)  # taken up again as soon as its backend has answered
        users = {case.job.user_id for case in cases.values()}
        return Scene(
            line=line,
            now_s=now_s,
            seats=seats,
            cases=cases,
            shares={user: self._shares.share(user) for user in users},
            tails={user: tail for user in users if (tail := self._tail(user, each)) > 0},
        )

    def _tail(self, user_id: int, each: int) -> int:
        return self._mirror.waiting(user_id) - min(each, len(self._mirror.front(user_id)))

    def _cases(self, members: list[Member], each: int) -> Iterator[Case]:
        ready = {member.key: member for member in members if is_ready(member)}
        waking = {member.key for member in members if is_waking(member)}
        for user_id in list(self._mirror.users):
            share, blocked = self._shares.share(user_id), self._shares.blocked(user_id)
            for seq, job in islice(self._mirror.front(user_id).items(), each):
                waiting = self._turns.line.get(seq)
                if waiting is not None:
                    yield self._case(job, waiting, share, ready, waking)
                elif blocked is not None:
                    yield Case(Waiting(seq, user_id, job.number, NOWHERE), note=blocked)

    def _case(self, job: Job, waiting: Waiting, share: Share, ready: Mapping[int, Member], waking: set[int]) -> Case:
        places = waiting.kind.places
        traits = self._matching.traits(waiting.seq)
        alike = (self._matching.alike(waiting.seq), places, tuple(job.labels), job.vram_mb)
        note = scarce = ""
        if places.isdisjoint(ready) and places.isdisjoint(waking):
            note = self._once(("why", alike), lambda: self._matching.why_not(job, share))
        elif not ready.keys() <= places:
            others = [member for key, member in ready.items() if key not in places]
            scarce = self._once(("scarce", alike), lambda: self._matching.scarce(job, share, others))
        return Case(waiting, self._estimates.work_s(traits), note, scarce)

    def _once(self, key: object, words: Callable[[], str]) -> str:
        """Looking for words costs more than all the rest."""
        found = self._words.get(key)
        if found is None:
            found = self._words[key] = words()
        return found

    def _seat(self, member: Member, models: frozenset[str], now_s: float) -> Seat:
        spot = replace(self._turns.spot(member), load_s=self._estimates.timings.loads(models, member.device))
        if member.job is not None or member.lingering is not None:
            return self._running(member, Seat(spot, "busy" if is_ready(member) else "away"), now_s)
        if member.idle:
            return Seat(spot, "idle")
        full = member.managed is not None and member.managed.full
        return Seat(spot, "busy" if is_ready(member) else "waking" if is_waking(member) else "away", full=full)

    def _running(self, member: Member, seat: Seat, now_s: float) -> Seat:
        """With the job that runs there and when it is expected to end."""
        seq = member.lingering if member.job is None else member.job
        placed = self._turns.placed.get(seq or 0)
        if placed is None:
            return seat
        traits = self._matching.traits(placed.seq)
        warm = seat.spot.warm if traits.models <= seat.spot.warm else traits.models
        spot = replace(seat.spot, warm=warm, user_id=placed.user_id, graph=traits.graph)
        seat = replace(seat, spot=spot, seq=seq, user_id=placed.user_id, lingers=member.job is None)
        span = self._estimates.running(member, traits)
        return seat if span is None else replace(seat, free_s=now_s + span.left_s, used_s=span.total_s)


def is_ready(member: Member) -> bool:
    """Whether it takes jobs, one after the other; one that missed a probe while it has a job may still end it."""
    answers = member.health is Health.UP or (member.health is Health.SUSPECT and member.job is not None)
    return answers and member.row.mode is BackendMode.ACTIVE and bool(member.info)
