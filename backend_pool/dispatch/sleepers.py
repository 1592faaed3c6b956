"""Which backends that are asleep jobs wait for, and what a backend that went away has forgotten."""

from collections.abc import Iterable

from backend_pool.backends.health import Health
from backend_pool.backends.pool import Member
from backend_pool.dispatch.turns import Turns
from proxy.base.clock import monotonic_s


def note_wanted(members: Iterable[Member], turns: Turns) -> None:
    """After a round of placing: a job that would start on a sleeping backend at once wants it to wake up."""
    for member in members:
        if member.health in (Health.DOWN, Health.ASLEEP):
            member.warmth.forget()
        wanted = member.health is Health.ASLEEP and turns.next([turns.spot(member)]) is not None
        if not wanted:
            member.wanted_since_s = None
        elif member.wanted_since_s is None:
            member.wanted_since_s = monotonic_s()
