"""Which backends that are asleep jobs wait for."""

from collections.abc import Collection, Iterable, Iterator

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.backends.waking import is_coming
from backend_pool.dispatch.turns import Turns
from proxy.base.clock import monotonic_s, now_ms

PART = 0.05
"""Of the time at most this part goes into looking how many are wanted."""


class Sleepers:
    """`note_wanted` after each round of placing."""

    def __init__(self) -> None:
        self._due_s = 0.0

    def note_wanted(self, members: Collection[Member], turns: Turns) -> None:
        """As many want to wake up as jobs would start on at once; not for those that one coming up will take."""
        asleep = {member.key: member for member in members if member.health is Health.ASLEEP}
        for member in members:
            if member.key not in asleep:
                member.wanted_since_s = None
        now_s = monotonic_s()
        if not asleep or turns.next([turns.spot(member) for member in asleep.values()]) is None:
            wanted = set[int]()
        elif now_s < self._due_s:
            return
        else:
            coming = [member for member in members if is_coming(member)]
            wanted = set(_beside(turns, coming, asleep.values()))
            self._due_s = now_s + (monotonic_s() - now_s) / PART
        for key, member in asleep.items():
            if key not in wanted:
                member.wanted_since_s = None
            elif member.wanted_since_s is None:
                member.wanted_since_s = now_s


def _beside(turns: Turns, coming: Iterable[Member], more: Iterable[Member]) -> Iterator[int]:
    """Which of `more` would get a job at once, if they were idle beside those that come and take theirs."""
    line, now_s = turns.line.copy(), now_ms() / 1000
    for members, counts in ((coming, False), (more, True)):
        spots = {member.key: turns.spot(member) for member in members}
        while spots and (choice := line.next(spots.values(), now_s)) is not None:
            line.started(choice.seq, choice.spot, now_s)
            del spots[choice.spot]
            if counts:
                yield choice.spot
