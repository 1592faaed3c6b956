"""Who is next: a pure order over users, each with one job at a time (DESIGN D7, its first and simple form).

Users with fewer running jobs first, then the one served longest ago, then the older job.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
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


def forecast(waiting: Sequence[Waiting], busy: Iterable[int], served: Mapping[int, int]) -> dict[int, int]:
    """Place in line of every waiting job, 1 for the next, if all jobs took equally long.

    `busy` are users with a running job: their first waiting job is a round behind the others'.
    """
    late = set(busy)
    ahead: dict[int, int] = defaultdict(int)
    ranked: list[tuple[int, int, int]] = []
    for job in sorted(waiting, key=lambda job: (job.number, job.seq)):
        turn = ahead[job.user_id] + (job.user_id in late)
        ahead[job.user_id] += 1
        ranked.append((turn, served.get(job.user_id, 0), job.seq))
    return {seq: place for place, (_, _, seq) in enumerate(sorted(ranked), start=1)}
