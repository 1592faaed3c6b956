"""Where the running sessions answer: the one thing that the path of every request looks at, in memory.

Tells whoever holds connections when a session ended or is about to.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from proxy.base.logs import events
from proxy.base.tasks import Tasks
from user_sessions.model import SessionRow

log = events(__name__)


@dataclass(frozen=True)
class Address:
    """Where a session answers, and the secret it wants."""

    socket: Path
    secret: str = field(repr=False)
    session_id: str


@dataclass(frozen=True)
class Live:
    """A running session of this generation."""

    address: Address
    generation: int


OnEnd = Callable[[int, Address], Awaitable[None]]


class LiveSessions:
    """By user."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._live: dict[int, Live] = {}
        self.on_end: list[OnEnd] = []

    def get(self, user_id: int) -> Live | None:
        """That user's, if it runs."""
        return self._live.get(user_id)

    def address(self, user_id: int) -> Address | None:
        """Where that user's answers."""
        live = self._live.get(user_id)
        return live.address if live else None

    def addresses(self) -> dict[int, Address]:
        """All of them."""
        return {user_id: live.address for user_id, live in self._live.items()}

    def generations(self) -> dict[int, int]:
        """Which generation of whose session this proxy sends requests to."""
        return {user_id: live.generation for user_id, live in self._live.items()}

    def add(self, row: SessionRow) -> Address:
        """Send requests to the session of that row from now on."""
        address = Address(Path(row.socket), row.secret, row.session_id)
        self._live[row.user_id] = Live(address, row.generation)
        return address

    def drop(self, user_id: int) -> list[asyncio.Task[None]]:
        """Send nothing there any more and tell whoever holds connections; the tasks end when these are closed."""
        live = self._live.pop(user_id, None)
        if live is None:
            return []
        name = f"session of user {user_id} ended"
        return [self._tasks.start(name, _quiet(callback, user_id, live.address)) for callback in self.on_end]

    def clear(self) -> None:
        """Forget all, at the server's own end."""
        self._live.clear()


async def _quiet(callback: OnEnd, user_id: int, address: Address) -> None:
    try:
        await callback(user_id, address)
    except Exception as error:
        log.error("a listener to the end of sessions failed", exc_info=error)
