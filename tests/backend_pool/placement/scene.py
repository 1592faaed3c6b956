"""A line with a clock and three backends, for tests that tell a small scene."""

from collections.abc import Mapping

from backend_pool.lane import Lane
from backend_pool.placement.line import Line
from backend_pool.placement.values import Choice, Kind, Policy, Spot, Waiting

ANN, BEN, CAT = 1, 2, 3
EVERYWHERE = frozenset({1, 2, 3})
ANY = Kind(EVERYWHERE)
FLUX = Kind(EVERYWHERE, frozenset({"flux"}))
WAN = Kind(EVERYWHERE, frozenset({"wan"}))
HAS_FLUX, HAS_WAN = frozenset({"flux"}), frozenset({"wan"})


class Scene:
    """A line with a clock, in which jobs are numbered as they come."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.line = Line(policy or Policy())
        self.now_s = 1000.0
        self.last = 0

    def queue(
        self,
        user_id: int,
        kind: Kind = ANY,
        *,
        number: float = 0.0,
        lane: Lane = Lane.INTERACTIVE,
        priority: int = 0,
        expected_s: float = 10.0,
        graph: str = "",
        avoid: frozenset[int] = frozenset(),
        work_s: Mapping[int, float] | None = None,
    ) -> int:
        self.last += 1
        seq = self.last
        job = Waiting(seq, user_id, number, kind, lane, priority, self.now_s, expected_s, graph, avoid, work_s or {})
        self.line.add(job)
        return seq

    def place(self, *spots: Spot) -> Choice | None:
        choice = self.line.next(spots or [Spot(1)], self.now_s)
        if choice is not None:
            self.line.started(choice.seq, choice.spot, self.now_s)
        return choice

    def run(self, *spots: Spot, used_s: float = 10.0) -> int:
        """Place a job, let it end; which one it was."""
        choice = self.place(*spots)
        assert choice is not None
        self.now_s += used_s
        self.line.ended(choice.seq, used_s)
        return choice.seq

    def order(self, count: int) -> list[int]:
        return [self.run() for _ in range(count)]


def placed(choice: Choice | None) -> tuple[int, int]:
    assert choice is not None
    return choice.seq, choice.spot
