"""Who is next: a pure order over users, each with one job at a time.

The user served longest ago comes first, then the older job.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Waiting:
    """A queued job as placement sees it. `number` and `seq` give ComfyUI's order inside a user."""

    seq: int
    user_id: int
    number: float


def order(heads: Iterable[Waiting], served: Mapping[int, int]) -> list[Waiting]:
    """The heads of idle users in the order they should get a backend; `served` counts placements, 0 for never."""
    return sorted(heads, key=lambda job: (served.get(job.user_id, 0), job.seq))
