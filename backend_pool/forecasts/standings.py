"""How waiting jobs stand towards the backends of a scene: what the words for why they wait are made of. Pure."""

from collections import Counter
from dataclasses import replace

from backend_pool.books.share import Share
from backend_pool.books.shares import Reserved
from backend_pool.forecasts.outlook import Standing
from backend_pool.forecasts.scene import Case, Scene, Seat
from backend_pool.lane import Lane
from backend_pool.placement.values import Waiting


class Standings:
    """What the words for a job are made of, now."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._running = Counter(seat.user_id for seat in scene.seats if seat.user_id is not None)
        self._coming = Counter(user_id for seat in scene.seats for user_id in seat.spot.closed)
        self._lingering = {seat.user_id for seat in scene.seats if seat.lingers}
        self._urgent = frozenset[int]().union(
            *(case.job.kind.places for case in scene.cases.values() if not self._yields(case.job))
        )
        self._known: dict[tuple[frozenset[int], int | None, int | None], Standing] = {}

    def of(self, job: Waiting, case: Case | None, ahead: int, own_ahead: int) -> Standing:
        """Of one job with so many waiting ones before it."""
        share = self._scene.shares.get(job.user_id, Share())
        coming = self._coming[job.user_id]
        places = self._places(job, share.group_id, job.user_id if coming else None)
        return replace(
            places,
            ahead=ahead,
            own_ahead=own_ahead,
            own_running=self._running[job.user_id],
            own_coming=coming,
            limit=share.running_limit,
            lingers=job.user_id in self._lingering,
            scarce=case.scarce if case is not None else "",
            batch_yields=self._yields(job) and not self._urgent.isdisjoint(job.kind.places),
        )

    def _yields(self, job: Waiting) -> bool:
        """Whether it goes after interactive jobs now."""
        policy = self._scene.line.policy
        old = self._scene.now_s - job.since_s >= policy.batch_wait_s
        return job.lane is Lane.BATCH and not old and policy.order != "fifo"

    def _places(self, job: Waiting, group_id: int | None, kept_out: int | None) -> Standing:
        key = (job.kind.places | job.kind.left, group_id, kept_out)
        if key not in self._known:
            self._known[key] = _places(self._scene, *key)
        return self._known[key]


def _places(scene: Scene, keys: frozenset[int], group_id: int | None, kept_out: int | None) -> Standing:
    """What is the same for all jobs of a kind and group, and of a user who may not go everywhere."""
    up = [seat for seat in scene.seats if seat.state in ("idle", "busy")]
    able = [seat for seat in up if seat.spot.key in keys]
    theirs = {
        seat.spot.key: reserved for seat in able if (reserved := _of_another(seat, scene.now_s, group_id)) is not None
    }
    now_ms = scene.now_s * 1000
    held = [one.end_ms for one in theirs.values() if one.begin_ms <= now_ms]
    free = [seat.spot for seat in able if seat.state == "idle"]
    idle = [spot.key for spot in free if kept_out not in spot.closed]
    coming = [seat for seat in scene.seats if seat.state == "waking" and seat.spot.key in keys]
    kept = [theirs[key].begin_ms for key in idle if key in theirs and theirs[key].begin_ms > now_ms]
    return Standing(
        now_ms=round(now_ms),
        able=len(able),
        open=sum(key not in theirs for key in idle),
        closed=sum(spot.key not in theirs for spot in free if kept_out in spot.closed),
        held=len(held),
        reserved_from_ms=min(kept, default=None),
        others=len(up) - len(able),
        waking=any(not (seat.full and able) for seat in coming),
        reserved_until_ms=min(held) if held and len(held) == len(able) else None,
    )


def _of_another(seat: Seat, now_s: float, group_id: int | None) -> Reserved | None:
    """A reservation of another group's there, now or to come."""
    held = seat.spot.reserved
    return None if held is None or held.group_id == group_id or held.end_ms <= now_s * 1000 else held
