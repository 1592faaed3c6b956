"""Where else a job that ran out of memory could run. Pure."""

from collections.abc import Iterable

from backend_pool.backends.fit import fits
from backend_pool.backends.health import AWAY
from backend_pool.backends.member import Member
from backend_pool.model import Job
from backend_pool.offers.fitness import Demands


def is_roomier(asked: Demands, members: Iterable[Member], member: Member, job: Job, labels: frozenset[str]) -> bool:
    """Whether another backend has all the job needs, with the labels of its group, and more memory than this one; where
    sizes are unknown, one it has not tried."""
    others = (other for other in members if other is not member and other.key not in job.avoid)
    return any(_larger(other, member) and other.health not in AWAY and fits(asked, other, labels) for other in others)


def _larger(other: Member, member: Member) -> bool:
    return other.vram_mb > member.vram_mb if member.vram_mb else True
