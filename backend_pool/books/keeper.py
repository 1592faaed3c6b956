"""The awaitable forms of every change of groups, memberships and reservations, and of reading what was used.

After a change the live `Groups` are read again before this returns, so that it is in force when the caller is told.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlmodel import Session

from backend_pool.backends.registry import named
from backend_pool.books import group_rows, reservations, usage
from backend_pool.books.groups import Groups
from backend_pool.books.reservations import Wish
from backend_pool.books.tables import Group, LedgerEntry, Reservation
from backend_pool.books.usage import By, Span, Sums
from proxy.base.database import Database

T = TypeVar("T")


class BooksKeeper:
    """What the API and the pages work with; `groups` answers who may use how much now."""

    def __init__(self, db: Database, groups: Groups) -> None:
        self._db = db
        self.groups = groups

    async def listing(self) -> tuple[list[Group], dict[int, int]]:
        """All groups by name, and the group of each user that is in one."""
        return await self._db.read(lambda s: (group_rows.everything(s), group_rows.members(s)))

    async def add(self, name: str, fields: Mapping[str, Any]) -> Group:
        """A new group. Raises BadInput or Conflict."""
        return await self._changed(lambda s: group_rows.add(s, name, fields))

    async def change(self, group_id: int, fields: Mapping[str, Any]) -> Group:
        """Set some fields. Raises BadInput or NotFound."""
        return await self._changed(lambda s: group_rows.change(s, group_rows.get(s, group_id), fields))

    async def remove(self, group_id: int) -> Group:
        """End a group. Raises NotFound."""

        def work(session: Session) -> Group:
            group = group_rows.get(session, group_id)
            group_rows.remove(session, group)
            return group

        return await self._changed(work)

    async def assign(self, user_id: int, group_id: int | None) -> None:
        """Put a user into a group, out of any other; None: into none. Raises NotFound."""
        await self._changed(lambda s: group_rows.assign(s, user_id, group_id))

    async def leave(self, user_id: int, group_id: int) -> None:
        """Take a user out of that group, if in it."""

        def work(session: Session) -> None:
            if group_rows.members(session).get(user_id) == group_id:
                group_rows.assign(session, user_id, None)

        await self._changed(work)

    async def reserve(self, group: str, backends: list[str], wish: Mapping[str, Any]) -> Reservation:
        """A reservation for a group; it and the backends by name or id. Raises BadInput, Conflict or NotFound."""
        return await self._changed(lambda s: reserve(s, group, backends, wish))

    async def unreserve(self, reservation_id: int) -> Reservation:
        """Take one out. Raises NotFound."""
        return await self._changed(lambda s: reservations.remove(s, reservation_id))

    async def sums(self, by: By, span: Span) -> list[Sums]:
        """What was used, by key."""
        return await self._db.read(lambda s: usage.sums(s, by, span))

    async def entries(self, span: Span, after_id: int) -> list[LedgerEntry]:
        """The next page of single jobs."""
        return await self._db.read(lambda s: usage.entries(s, span, after_id))

    async def _changed(self, work: Callable[[Session], T]) -> T:
        result = await self._db.write(work)
        await self.groups.reload()
        return result


def reserve(session: Session, group: str, backends: list[str], wish: Mapping[str, Any]) -> Reservation:
    """The body of `BooksKeeper.reserve`, for the command line too."""
    found = group_rows.named(session, group)
    ids = [named(session, which).key for which in backends]
    return reservations.add(session, Wish(group_id=found.id or 0, backends=ids, **wish))
