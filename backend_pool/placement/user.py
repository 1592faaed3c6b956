"""One user in the line: virtual time, what runs, what waits. Pure."""

from dataclasses import dataclass, field
from typing import NamedTuple

from backend_pool.books.share import Share
from backend_pool.placement.ranking import Ranking
from backend_pool.placement.values import Kind


class Bucket(NamedTuple):
    """Jobs that are alike to placement: whoever may run one of them somewhere may run any of them there."""

    batch: bool
    group_id: int | None
    kind: Kind


@dataclass
class User:
    """`settled_s` is what the ended jobs took, by the weight; `charges` what the running ones are expected to take."""

    id: int
    share: Share = field(default_factory=Share)
    settled_s: float = 0.0
    charges: dict[int, float] = field(default_factory=dict)
    queues: dict[Bucket, Ranking] = field(default_factory=dict)
    """The waiting jobs by their own order."""
    served: int = 0
    """Number of the user's last placement among all of them; 0 for none."""
    came: int = 0
    """The job with which the user came, after nothing waited or ran."""
    placed: int = 0
    """Jobs placed since then."""
    mean_s: float | None = None
    """What the user's jobs took lately."""
    standing: tuple[float, int, int] | None = None
    """What the user's turns were ranked by; None while no job more may run."""
    front: Bucket | None = None
    """Where the first of the user's own jobs waits."""

    @property
    def virtual_s(self) -> float:
        """Weighted GPU-seconds, the running jobs included."""
        return self.settled_s + sum(self.charges.values())

    @property
    def free(self) -> bool:
        """Whether one more job may run."""
        return len(self.charges) < self.share.running_limit

    @property
    def active(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self.queues or self.charges)

    @property
    def newcomer(self) -> bool:
        """Whether nothing was placed since the user came."""
        return self.placed == 0

    def copy(self) -> "User":
        """One that goes its own way."""
        queues = {bucket: queue.copy() for bucket, queue in self.queues.items()}
        return User(
            self.id, self.share, self.settled_s, self.charges.copy(), queues,
            self.served, self.came, self.placed, self.mean_s, self.standing, self.front,
        )  # fmt: skip
