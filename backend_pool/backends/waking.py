"""Whether a backend whose process somebody keeps is being started for jobs, or is about to be. Pure."""

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.backends.phase import Phase
from backend_pool.model import BackendMode


def is_coming(member: Member) -> bool:
    """Whether its process is being started, or has just been and was not asked yet."""
    if member.row.mode is not BackendMode.ACTIVE or member.managed is None:
        return False
    state = member.managed.state
    return state is Phase.STARTING or (state is Phase.RUNNING and member.health is Health.JOINING)


def is_waking(member: Member) -> bool:
    """Whether it comes, or is about to, for a job that waits."""
    wanted = member.health is Health.ASLEEP and member.wanted_since_s is not None
    return is_coming(member) or (wanted and member.row.mode is BackendMode.ACTIVE)
