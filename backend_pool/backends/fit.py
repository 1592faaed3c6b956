"""Whether a backend may be given a job, be it busy, asleep or down at the moment. Pure."""

from backend_pool.backends.member import Member
from backend_pool.model import BackendMode
from backend_pool.offers.fitness import Demands, lacking


def fits(asked: Demands, member: Member, labels: frozenset[str], vram_mb: int = 0) -> bool:
    """By what it offers, its labels, and memory of which the job needs more than `vram_mb`; unknown memory will do."""
    if member.row.mode is not BackendMode.ACTIVE or not member.info:
        return False
    small = bool(vram_mb and member.vram_mb) and member.vram_mb <= vram_mb
    return labels <= set(member.row.labels) and not small and lacking(asked, member.provider) is None
