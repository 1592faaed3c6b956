"""The seam between dispatch and who may use how much: each user's part of the pool, reservations, used-up quotas.

Behind it stand the groups.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from backend_pool.books.share import Share


@dataclass(frozen=True)
class Reserved:
    """A backend is a group's from `begin_ms` until before `end_ms`: now or next."""

    group_id: int
    begin_ms: int
    end_ms: int


class Shares(Protocol):
    """Answers come out of memory, at once."""

    def share(self, user_id: int) -> Share:
        """The user's part."""

    def reserved(self, backend_id: int, labels: Collection[str], now_ms: int) -> Reserved | None:
        """Who has the backend to themselves now, or will have it next."""

    def blocked(self, user_id: int) -> str | None:
        """Why none of the user's jobs may start now, in words."""
