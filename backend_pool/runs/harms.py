"""What users' workflows did to backends lately, in memory: who brings down one after the other is not given more.

A prompt that succeeds has shown that it was not its doing, which says nothing of others made of the same: another text
is enough to harm, or not to. Bounded: what was noted longest ago is forgotten first.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from backend_pool.forecasts.signature import Traits
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
    """When, and by which prompt of those that are made of the same."""

    lost: list[tuple[float, str]] = field(default_factory=list)
    broke: list[tuple[float, str]] = field(default_factory=list)


class Harms:
    """By user and by what a workflow is made of, so that other ids, seeds or numbers make no other one of it."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, str], _Moments] = OrderedDict()

    def note(self, user_id: int, traits: Traits, *, broke: bool, times: int = 1) -> None:
        """A backend was lost under it, or so many; `broke` where it had to be quarantined. Nothing where the workflow
        could not be read."""
        if traits.makeup:
            moments = self._known.setdefault((user_id, traits.makeup), _Moments())
            self._known.move_to_end((user_id, traits.makeup))
            noted = moments.broke if broke else moments.lost
            noted.extend([(monotonic_s(), traits.whole)] * times)
            del noted[:-KILLS]
            while len(self._known) > KEPT:
                self._known.popitem(last=False)

    def succeeded(self, user_id: int, traits: Traits) -> None:
        """It was not its doing; the like of it with other numbers or texts may still harm."""
        moments = self._known.get((user_id, traits.makeup))
        if moments is not None and traits.whole:
            moments.lost = [noted for noted in moments.lost if noted[1] != traits.whole]
            moments.broke = [noted for noted in moments.broke if noted[1] != traits.whole]
            if not moments.lost and not moments.broke:
                del self._known[(user_id, traits.makeup)]

    def repeated(self, user_id: int, traits: Traits) -> bool:
        """Whether it has lost a backend before."""
        moments = self._known.get((user_id, traits.makeup), _Moments())
        return _lately(moments.lost) + _lately(moments.broke) > 0

    def barred(self, user_id: int, traits: Traits) -> bool:
        """Whether it is not to run for now."""
        return _lately(self._known.get((user_id, traits.makeup), _Moments()).broke) >= KILLS


def _lately(noted: list[tuple[float, str]]) -> int:
    return sum(monotonic_s() - moment < KEPT_S for moment, _ in noted)
