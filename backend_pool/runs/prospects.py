"""Where else a job that ran out of memory could run."""

import asyncio

from backend_pool.backends.health import AWAY
from backend_pool.backends.member import Member
from backend_pool.backends.pool import Pool
from backend_pool.model import BackendMode, Job, JobDocument
from backend_pool.offers.fitness import demands, lacking


async def is_roomier(pool: Pool, member: Member, job: Job, document: JobDocument) -> bool:
    """Whether another backend has all the job needs and more memory; where sizes are unknown, one it has not tried."""
    asked = await asyncio.to_thread(demands, document.prompt, document.targets, pool.info)
    return any(
        _larger(other, member)
        for other in pool.members.values()
        if other is not member
        and other.key not in job.avoid
        and other.row.mode is BackendMode.ACTIVE
        and other.health not in AWAY
        and set(job.labels) <= set(other.row.labels)
        and other.info
        and lacking(asked, other.provider) is None
    )


def _larger(other: Member, member: Member) -> bool:
    return other.vram_mb > member.vram_mb if member.vram_mb else True
