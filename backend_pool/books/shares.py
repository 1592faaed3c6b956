"""The seam between dispatch and who may use how much: each user's part of the pool, reservations, used-up quotas.

Behind it stand the groups, or the settings alone.
"""

from collections.abc import Collection
from typing import Protocol

from backend_pool.books.share import Share
from proxy.base.settings import Settings


class Reserved(Protocol):
    """A reservation of one backend. Times are milliseconds since the epoch."""

    @property
    def group_id(self) -> int:
        """Whose jobs run there meanwhile."""

    @property
    def begin_ms(self) -> int:
        """From then on."""

    @property
    def end_ms(self) -> int:
        """Until then."""


class Shares(Protocol):
    """Answers come out of memory, at once."""

    def share(self, user_id: int) -> Share:
        """The user's part."""

    def reserved(self, backend_id: int, labels: Collection[str], now_ms: int) -> Reserved | None:
        """Who has the backend to themselves now, or will have it next."""

    def blocked(self, user_id: int) -> str | None:
        """Why none of the user's jobs may start now, in words."""


class DefaultShares:
    """Every user has what the settings say, and nothing is reserved."""

    def __init__(self, settings: Settings) -> None:
        self._share = Share(
            running_limit=settings.running_limit,
            queue_limit=settings.queue_limit,
            priority_limit=settings.priority_limit,
            run_limit_s=settings.run_limit_s,
        )

    def share(self, _user_id: int) -> Share:
        """The same for all."""
        return self._share

    def reserved(self, _backend_id: int, _labels: Collection[str], _now_ms: int) -> Reserved | None:
        """Nothing."""
        return None

    def blocked(self, _user_id: int) -> str | None:
        """Nobody."""
        return None
