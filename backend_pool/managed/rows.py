"""Rows of the backends that one keeper keeps: one per name, at its address."""

from collections.abc import Collection

from sqlmodel import Session, col, select

from backend_pool.model import Backend
from backend_pool.workers.backend_rows import Pack, place, remove
from proxy.base.database import Database


class ManagedRows:
    """Rows of one source."""

    def __init__(self, db: Database, source: str) -> None:
        self._db = db
        self.source = source

    async def listing(self) -> list[Backend]:
        """All of this source, oldest first."""
        query = select(Backend).where(Backend.source == self.source).order_by(col(Backend.id))
        return await self._db.read(lambda s: list(s.exec(query).all()))

    async def place(self, name: str, url: str, pack: Pack | None = None) -> Backend:
        """The row of that name, at that address from now on. Raises Conflict when somebody else's has either."""

        def work(s: Session) -> Backend:
            kin = s.exec(select(Backend.id).where(Backend.source == self.source)).all()
            return place(s, self.source, name, url, pack=pack, kin=kin)

        return await self._db.write(work)

    async def keep_only(self, names: Collection[str]) -> None:
        """Forget those that are not kept any more."""

        def work(s: Session) -> None:
            query = select(Backend).where(Backend.source == self.source, col(Backend.name).not_in(names))
            for row in s.exec(query).all():
                remove(s, row)

        await self._db.write(work)
