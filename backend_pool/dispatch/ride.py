"""One job on one backend, from its placement until its files are home: what only this while is about. Memory alone."""

from dataclasses import dataclass

from backend_pool.backends.member import Member
from backend_pool.model import Job
from backend_pool.runs.runner import Runner


@dataclass
class Ride:
    """Changed by the carrier alone."""

    job: Job
    """As it was assigned; its runner knows it as it is."""
    member: Member
    could_ms: int | None = None
    """Since when the backend could have begun it, where this process placed it and has not counted that yet."""
    cold: frozenset[str] = frozenset()
    """Models that the backend did not hold when it got the job."""
    kept_s: float = 0.0
    """How long the job has kept the backend from others."""
    runner: Runner | None = None
    """None while it is being made."""
    cancelled: bool = False
    """Its user wants it to end."""
