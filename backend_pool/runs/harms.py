"""What users' workflows did to backends lately, in memory: who brings down one after the other is not given more.

A workflow that succeeds has shown that it was not its doing. Bounded: what was noted longest ago is forgotten first.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from backend_pool.runs.ladder import KILLS
from proxy.base.clock import monotonic_s

KEPT_S = 3600.0
KEPT = 1000
"""Workflows; of each as many moments as it takes to be barred."""

BARRED = (
    f"This workflow broke {KILLS} backends within an hour, so the server does not run it for now. "
    "Ask the administrator, or try it again in an hour."
)


@dataclass
class _Moments:
    lost: list[float] = field(default_factory=list)
    broke: list[float] = field(default_factory=list)


class Harms:
    """By user and graph; nothing is kept of jobs whose graph is not known."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, str], _Moments] = OrderedDict()

    def note(self, user_id: int, graph: str, *, broke: bool, times: int = 1) -> None:
        """A backend was lost under it, or so many; `broke` where it had to be quarantined."""
        if graph:
            moments = self._known.setdefault((user_id, graph), _Moments())
            self._known.move_to_end((user_id, graph))
            noted = moments.broke if broke else moments.lost
            noted.extend([monotonic_s()] * times)
            del noted[:-KILLS]
            while len(self._known) > KEPT:
                self._known.popitem(last=False)

    def succeeded(self, user_id: int, graph: str) -> None:
        """It was not its doing."""
        self._known.pop((user_id, graph), None)

    def repeated(self, user_id: int, graph: str) -> bool:
        """Whether it has lost a backend before."""
        moments = self._known.get((user_id, graph), _Moments())
        return _lately(moments.lost) + _lately(moments.broke) > 0

    def barred(self, user_id: int, graph: str) -> bool:
        """Whether it is not to run for now."""
        return _lately(self._known.get((user_id, graph), _Moments()).broke) >= KILLS


def _lately(moments: list[float]) -> int:
    return sum(monotonic_s() - moment < KEPT_S for moment in moments)
