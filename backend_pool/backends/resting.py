"""Health of members whose processes somebody keeps: an asleep, starting or crashed one is known without asking it."""

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.backends.phase import ManagedState, Phase
from proxy.base.clock import monotonic_s
from proxy.base.logs import events

log = events(__name__)


class Resting:
    """What the keepers have told, by backend id; members come and go with their addresses, this stays."""

    def __init__(self) -> None:
        self.states: dict[int, ManagedState] = {}

    def told(self, backend_id: int, state: ManagedState | None, member: Member | None) -> bool:
        """Take what a keeper says, again and again. Whether the member has to look at it."""
        if state is None:
            self.states.pop(backend_id, None)
        elif state.says_as(self.states.get(backend_id)):
            return False
        else:
            self.states[backend_id] = state
        if member is None or member.managed == state:
            return False
        if state is not None and state.state in (Phase.STARTING, Phase.ASLEEP):
            member.restart_wanted.clear()  # the process that was to end is gone
        before, member.managed = member.managed, state
        if (state is None or state.health is None) and before is not None and before.health is not None:
            member.health, member.error, member.silent_since = Health.JOINING, None, monotonic_s()
        return True


def rest(member: Member) -> tuple[bool, bool]:
    """Give it the health that its keeper knows: (known without asking, changed by it)."""
    known = member.managed
    if known is None or known.health is None:
        return False, False
    before, member.health, member.error = member.health, known.health, known.words
    if known.gone:
        member.gone.set()
        member.proven = None
        member.warmth.forget()
    changed = member.health is not before
    if changed:
        log.info("backend health changed", backend=member.row.name, health=member.health, was=before)
    return True, changed


def is_same(member: Member, name: str, source: str) -> bool:
    """Whether a row with another address is the same instance, started anew, rather than another backend."""
    return member.managed is not None and (member.row.name, member.row.source) == (name, source)
