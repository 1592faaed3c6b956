"""A pool without groups."""

from collections.abc import Collection

from backend_pool.books.share import Share
from backend_pool.books.shares import Reserved, Shares
from proxy.base.settings import Settings


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


class InForce:
    """Those of `by`, which a test may exchange while the pool runs."""

    def __init__(self, by: Shares) -> None:
        self.by = by

    def share(self, user_id: int) -> Share:
        """Theirs."""
        return self.by.share(user_id)

    def reserved(self, backend_id: int, labels: Collection[str], now_ms: int) -> Reserved | None:
        """Theirs."""
        return self.by.reserved(backend_id, labels, now_ms)

    def blocked(self, user_id: int) -> str | None:
        """Theirs."""
        return self.by.blocked(user_id)
