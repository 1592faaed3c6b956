"""What a user may take of the pool, as a value: out of the user's group, or of the settings."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """One user's part. Every user of a group has the group's weight and limits for themselves; quotas are shared."""

    group: str = ""
    """Name of the group; empty for none."""
    group_id: int | None = None
    weight: float = 1.0
    """A user of weight 2 gets twice the GPU-seconds of a user of weight 1 while both have jobs waiting."""
    running_limit: int = 1
    queue_limit: int = 1000
    priority_limit: int = 0
    """The highest priority its jobs may ask for; lower and negative ones are always allowed."""
    run_limit_s: float | None = None
    """How long one job may run on a backend."""
    labels: frozenset[str] = frozenset()
    """Its jobs run on backends that have all of these only."""
