"""What the authenticator found out lately, so that most requests need no database.

Bounded (the oldest entry goes), short-lived, and dropped at once for a user whose access changed in this process. A
look-up that began before such a change must not store its answer after it: `generation` tells.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from proxy.base.clock import monotonic_s

Via = Literal["login", "token"]


@dataclass(frozen=True)
class Identity:
    """Who sends a request, and by which credential."""

    user_id: int
    name: str
    slug: str
    is_admin: bool
    via: Via
    login_id: str | None = None
    token_id: int | None = None


@dataclass(frozen=True)
class _Entry:
    identity: Identity | None
    until_s: float


class AccessCache:
    """Credential -> identity, or None for a credential known to be bad."""

    def __init__(
        self,
        ttl_s: float = 5.0,
        bad_ttl_s: float = 30.0,
        capacity: int = 4096,
        clock: Callable[[], float] = monotonic_s,
    ) -> None:
        self.generation = 0
        self._ttl_s = ttl_s
        self._bad_ttl_s = bad_ttl_s
        self._capacity = capacity
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self.on_change: list[Callable[[int], None]] = []
        """Called with the user whose access changed: open WebSockets are judged again."""

    def get(self, key: str) -> tuple[bool, Identity | None]:
        """(known, identity)."""
        entry = self._entries.get(key)
        if entry is None or entry.until_s <= self._clock():
            return False, None
        return True, entry.identity

    def put(self, key: str, identity: Identity | None, generation: int) -> None:
        """Keep an answer whose look-up began at `generation`."""
        if generation != self.generation:
            return
        ttl_s = self._bad_ttl_s if identity is None else self._ttl_s
        self._entries[key] = _Entry(identity, self._clock() + ttl_s)
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def forget_user(self, user_id: int) -> None:
        """Drop what is known of that user, and every bad credential: it may have been theirs."""
        self.generation += 1
        stale = [key for key, e in self._entries.items() if e.identity is None or e.identity.user_id == user_id]
        for key in stale:
            del self._entries[key]
        for tell in self.on_change:
            tell(user_id)
