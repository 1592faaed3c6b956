"""How waiting jobs stand towards the backends of a scene: what the words for why they wait are made of. Pure."""

from collections import Counter
from dataclasses import dataclass

from backend_pool.books.share import Share
from backend_pool.forecasts.outlook import Standing
from backend_pool.forecasts.scene import Case, Scene
from backend_pool.lane import Lane
from backend_pool.placement.values import Waiting


class Standings:
    """What the words for a job are made of, now."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._running = Counter(seat.user_id for seat in scene.seats if seat.user_id is not None)
        self._lingering = {seat.user_id for seat in scene.seats if seat.lingers}
        self._urgent = frozenset[int]().union(
            *(case.job.kind.places for case in scene.cases.values() if case.job.lane is Lane.INTERACTIVE)
        )
        self._known: dict[tuple[frozenset[int], int | None], _Places] = {}

    def of(self, job: Waiting, case: Case | None, ahead: int, own_ahead: int) -> Standing:
        """Of one job with so many waiting ones before it."""
        share = self._scene.shares.get(job.user_id, Share())
        places = self._places(job, share.group_id)
        return Standing(
            ahead=ahead,
            own_ahead=own_ahead,
            own_running=self._running[job.user_id],
            limit=share.running_limit,
            lingers=job.user_id in self._lingering,
            able=places.able,
            open=places.open,
            others=places.others,
            waking=places.waking,
            reserved_until_ms=places.reserved_until_ms,
            scarce=case.scarce if case is not None else "",
            batch_yields=job.lane is Lane.BATCH and not self._urgent.isdisjoint(job.kind.places),
        )

    def _places(self, job: Waiting, group_id: int | None) -> "_Places":
        key = (job.kind.places | job.kind.left, group_id)
        if key not in self._known:
            self._known[key] = _places(self._scene, *key)
        return self._known[key]


@dataclass(frozen=True)
class _Places:
    """Where jobs of a kind and group stand, now."""

    able: int
    open: int
    others: int
    waking: bool
    reserved_until_ms: int | None


def _places(scene: Scene, keys: frozenset[int], group_id: int | None) -> _Places:
    up = [seat for seat in scene.seats if seat.state in ("idle", "busy")]
    able = [seat for seat in up if seat.spot.key in keys]
    held = [
        seat.spot.reserved.end_ms
        for seat in able
        if seat.spot.reserved is not None
        and seat.spot.reserved.group_id != group_id
        and seat.spot.reserved.begin_ms <= scene.now_s * 1000 < seat.spot.reserved.end_ms
    ]
    return _Places(
        able=len(able),
        open=sum(seat.state == "idle" for seat in able) if not held else 0,
        others=len(up) - len(able),
        waking=any(seat.state == "waking" and seat.spot.key in keys for seat in scene.seats),
        reserved_until_ms=min(held) if held and len(held) == len(able) else None,
    )
