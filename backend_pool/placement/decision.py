"""One decision: which waiting job gets which of the idle backends. Pure, changes nothing.

First whose turn it is, then the best place for that job; if it would have to load models there, a job whose models are
loaded there may be pulled forward, within bounds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from math import inf

from backend_pool.placement.index import LOOKS, Found, Index
from backend_pool.placement.ranking import Key, Ranking
from backend_pool.placement.user import Bucket, User
from backend_pool.placement.values import Choice, Spot, Waiting


class Decision:
    """Of one moment."""

    def __init__(
        self,
        index: Index,
        spots: Iterable[Spot],
        now_s: float,
        *,
        passed_s: Mapping[int, float],
        guess_s: Callable[[Waiting, int], float],
    ) -> None:
        self._index = index
        self._spots = {spot.key: spot for spot in spots}
        self._now_s = now_s
        self._passed_s = passed_s
        self._guess_s = guess_s
        self._rooms: dict[int | None, tuple[frozenset[int], list[tuple[Spot, float]]]] = {}

    def choice(self) -> Choice | None:
        """The next job and its place; None when no waiting job may run on any of the spots."""
        found = self._turn(batch=False) or self._turn(batch=True) if self._spots else None
        if found is None:
            return None
        _, job = found
        spot = self._best_spot(job)
        cold = job.kind.models - spot.warm
        warm = self._warmer(found, spot) if cold and self._may_be_passed(job) else None
        if warm is not None:
            return Choice(warm.seq, spot.key, "warm", spot.load(warm.kind.models), job.seq)
        return Choice(job.seq, spot.key, "turn", spot.load(job.kind.models & spot.warm))

    def _turn(self, *, batch: bool) -> Found | None:
        found = (self._first(bucket, turns) for bucket, turns in self._index.turns(batch=batch))
        return min((one for one in found if one), key=lambda one: one[0], default=None)

    def _first(self, bucket: Bucket, turns: Ranking) -> Found | None:
        """The job of a bucket whose turn it is."""
        free, short = self._room(bucket.group_id)
        open_ = [self._spots[key] for key in bucket.kind.places & free]
        if open_ and not frozenset.intersection(*(spot.closed for spot in open_)):
            first = turns.first()
            return (first[0], self._index.jobs[int(first[0][-1])]) if first else None
        places = [(spot, room_s) for spot, room_s in short if spot.key in bucket.kind.places]
        places += [(spot, inf) for spot in open_]
        if not places:
            return None
        return self._index.first_fitting(bucket, lambda job: any(self._fits(job, *place) for place in places))

    def _room(self, group_id: int | None) -> tuple[frozenset[int], list[tuple[Spot, float]]]:
        """Spots that a group's jobs may use freely, and those that it has to leave in so many seconds."""
        known = self._rooms.get(group_id)
        if known is None:
            rooms = [(spot, self._room_s(spot, group_id)) for spot in self._spots.values()]
            free = frozenset(spot.key for spot, room_s in rooms if room_s == inf)
            known = self._rooms[group_id] = (free, [place for place in rooms if 0 < place[1] < inf])
        return known

    def _room_s(self, spot: Spot, group_id: int | None) -> float:
        held = spot.reserved
        if held is None or held.group_id == group_id or held.end_ms <= self._now_s * 1000:
            return inf
        return max(0.0, held.begin_ms / 1000 - self._now_s)

    def _fits(self, job: Waiting, spot: Spot, room_s: float) -> bool:
        if job.user_id in spot.closed:
            return False
        return self._guess_s(job, spot.key) + spot.load(job.kind.models - spot.warm) <= room_s

    def _may_run(self, job: Waiting, spot: Spot) -> bool:
        if spot.key not in job.kind.places or job.user_id in spot.closed:
            return False
        free, short = self._room(self._index.users[job.user_id].share.group_id)
        return spot.key in free or any(place is spot and self._fits(job, spot, room_s) for place, room_s in short)

    def _best_spot(self, job: Waiting) -> Spot:
        """Where it was not lost, then least to load, then the user's own workflow cached, then what others need least,
        then the fastest, then the soundest."""

        def fit(spot: Spot) -> tuple[bool, float, bool]:
            own = bool(job.graph) and (spot.user_id, spot.graph) == (job.user_id, job.graph)
            return spot.key in job.avoid, spot.load(job.kind.models - spot.warm), not own

        able = [spot for spot in self._spots.values() if self._may_run(job, spot)]
        best = min(fit(spot) for spot in able)
        alike = [spot for spot in able if fit(spot) == best]
        if len(alike) == 1:
            return alike[0]
        return min(alike, key=lambda spot: (self._needed_s(job, spot), self._guess_s(job, spot.key), *_wear(spot)))

    def _needed_s(self, job: Waiting, spot: Spot) -> float:
        """Seconds of loading by waiting jobs that the job may undo, by taking this spot for its own models."""
        if not job.kind.models - spot.warm:
            return 0.0
        others = (
            (bucket.kind.models & spot.warm, count)
            for bucket, count in self._index.counts.items()
            if spot.key in bucket.kind.places and bucket.kind != job.kind
        )
        return sum(count * spot.load(warm - job.kind.models) for warm, count in others if warm)

    def _may_be_passed(self, job: Waiting) -> bool:
        """A job is passed over for so long since it was first."""
        policy = self._index.policy
        since_s = self._passed_s.get(job.seq, self._now_s)
        return policy.order == "fair" and policy.affinity_s > 0 and self._now_s - since_s <= policy.affinity_s

    def _warmer(self, turn: Found, spot: Spot) -> Waiting | None:
        """The next of the jobs whose models the spot holds, if its user is little further than the one passed over."""
        key, job = turn
        passed = self._index.users[job.user_id]
        last = key[0] + self._index.policy.affinity_s
        best: Found | None = None
        for bucket, turns in self._index.turns(batch=self._index.batch(job.seq)):
            kind = bucket.kind
            if spot.key in kind.places and kind.models and kind.models <= spot.warm:
                found = next(self._passing(bucket, turns, passed, spot, last), None)
                best = found if best is None or (found and found[0] < best[0]) else best
        return best[1] if best else None

    def _passing(self, bucket: Bucket, turns: Ranking, passed: User, spot: Spot, last: float) -> Iterator[Found]:
        """Jobs of a bucket that may go before one of user `passed`, in turn."""
        for key, name in islice(turns.in_order(), LOOKS):
            if key[0] > last:
                return
            user = self._index.users[name]
            # Who has had nothing since they came waits for nobody who has.
            if user is passed or (passed.newcomer and not user.newcomer):
                continue
            found = self._index.own_fitting(user, bucket, lambda job: self._may_run(job, spot))
            if found is not None and found[0][0] <= last and self._is_first(user, bucket, found[0], spot):
                yield found

    def _is_first(self, user: User, bucket: Bucket, key: Key, spot: Spot) -> bool:
        """Whether no earlier job of the user in this lane may run on the spot."""
        first = user.queues[bucket].first()
        if bucket == user.front and first is not None and first[1] == key[-1]:
            return True
        for other in user.queues:
            if other.batch is bucket.batch and other != bucket and spot.key in other.kind.places:
                found = self._index.own_fitting(user, other, lambda job: self._may_run(job, spot))
                if found is not None and found[0] < key:
                    return False
        return True


def _wear(spot: Spot) -> tuple[int, int, int]:
    """The sounder and less used one first; always the same one of two alike."""
    return spot.failed, spot.done, spot.key
