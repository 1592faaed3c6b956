"""What the pool knows of a managed instance that its supervisor decides by: busy, idle, wanted, to be restarted."""

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.backends.phase import Phase
from backend_pool.backends.waking import is_coming
from backend_pool.managed.supervisor import Facts


class Doings:
    """Remembers which members have ever told what they offer; the rest is read off them.

    A prompt that nobody waits for, or a trial job, keeps busy what is to stay; what is to end does not wait for it: a
    process that hangs never lets go of one. Busy, too, is one that was started and gets jobs once it has been asked.
    """

    def __init__(self) -> None:
        self.known: set[int] = set()

    def of(self, member: Member | None, backend_id: int | None, now: float) -> Facts:
        """Of that member, which may not have joined yet."""
        if member is None or backend_id is None:
            return Facts(known=backend_id in self.known)
        if member.info:
            self.known.add(backend_id)
        restart = member.restart_wanted.is_set() or _hangs(member)
        occupied = bool(member.leftovers) or _is_tried(member) or is_coming(member)
        busy = member.busy or (occupied and not (restart or _stops(member)))
        since_s = member.idle_since_s
        return Facts(
            busy=busy,
            idle_s=None if busy or since_s is None else max(0.0, now - since_s),
            wanted=member.wanted_since_s is not None,
            known=backend_id in self.known,
            restart=restart,
        )


def _is_tried(member: Member) -> bool:
    """Whether it gets jobs once a trial job has run there: asleep before that, it would be woken for them again."""
    return member.on_trial or (member.untried and member.health is Health.SUSPECT)


def _stops(member: Member) -> bool:
    """Whether it gets no new job any more, and ends."""
    return member.managed is not None and member.managed.state is Phase.STOPPING


def _hangs(member: Member) -> bool:
    """Whether it has answered since it was started, and does not any more. One that was started and is out of reach
    would be no nearer after a restart; one that was found running may have hung before, and is given that one."""
    managed = member.managed
    if managed is None or managed.state is not Phase.RUNNING or member.health is not Health.DOWN:
        return False
    return managed.adopted or (member.seen_ms is not None and member.seen_ms >= managed.since_ms)
