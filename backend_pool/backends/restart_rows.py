"""Wishes to restart backends, as rows: asked for (`restart_ms`), told to (`restarted_ms`), back again.

Backends that were asked to restart together have the same `restart_ms` and go one after the other; it is one larger
than any before. Restarts survive one of the server, and the command line asks for them with its own process.
"""

from collections.abc import Collection, Sequence

from sqlmodel import Session, col, select

from backend_pool.backends.registry import named
from backend_pool.model import Backend
from backend_pool.workers.tables import Worker
from proxy.base.clock import now_ms
from proxy.base.database import Database
from proxy.base.errors import Conflict, NotFound

BY_HAND = ("registered", "settings")
"""Somebody else starts these: only a worker pack can have them begin anew."""


class RestartRows:
    """Writes of the table `backends`; the methods ending in `_now` block and are for the command line."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def ask(self, backend_id: int) -> Backend:
        """Restart one as soon as its job has ended. Raises NotFound, Conflict for one that cannot be restarted."""
        return await self._db.write(lambda s: _ask_one(s, s.get(Backend, backend_id)))

    def ask_now(self, which: str) -> Backend:
        """`ask` by name or id."""
        return self._db.write_now(lambda s: _ask_one(s, named(s, which)))

    async def ask_all(self, labels: Collection[str] = ()) -> list[Backend]:
        """Restart all that can be and have these labels, one after the other. Raises NotFound when there are none."""
        return await self._db.write(lambda s: _ask_all(s, labels))

    def ask_all_now(self, labels: Collection[str] = ()) -> list[Backend]:
        """`ask_all`."""
        return self._db.write_now(lambda s: _ask_all(s, labels))

    async def told(self, asked: Backend) -> None:
        """It has been told to restart."""

        def work(s: Session) -> None:
            row = s.get(Backend, asked.id)
            if row is not None and row.restart_ms == asked.restart_ms:
                row.restarted_ms = max(now_ms(), row.restart_ms)

        await self._db.write(work)

    async def settle(self, asked: Backend) -> None:
        """It is back, or its restart has no point any more: unless somebody has asked again since."""

        def work(s: Session) -> None:
            row = s.get(Backend, asked.id)
            if row is not None and row.restart_ms == asked.restart_ms:
                row.restart_ms = 0

        await self._db.write(work)

    async def withdraw(self, batch: int | None = None) -> list[Backend]:
        """Forget the restarts that have not begun, of one batch or all; those rows."""
        return await self._db.write(lambda s: _withdraw(s, batch))

    def withdraw_now(self) -> list[Backend]:
        """`withdraw` all."""
        return self._db.write_now(lambda s: _withdraw(s, None))


def _restartable(s: Session) -> list[Backend]:
    workers = set(s.exec(select(Worker.backend_id)).all())
    rows = s.exec(select(Backend).order_by(col(Backend.id)).with_for_update()).all()
    return [row for row in rows if row.id in workers or row.source not in BY_HAND]


def _ask_one(s: Session, row: Backend | None) -> Backend:
    if row is None:
        raise NotFound("There is no such backend.")
    if row not in _restartable(s):
        raise Conflict(
            f"Backend {row.name} is a ComfyUI without the worker pack: restart it where it runs, or install the pack "
            "there (docs/worker-pack.md)."
        )
    _ask(s, [row])
    return row


def _ask_all(s: Session, labels: Collection[str]) -> list[Backend]:
    rows = [row for row in _restartable(s) if set(labels) <= set(row.labels)]
    if not rows:
        raise NotFound("There is no such backend that can be restarted from here: that takes the worker pack.")
    _ask(s, rows)
    return rows


def _ask(s: Session, rows: Sequence[Backend]) -> None:
    latest = max((max(row.restart_ms, row.restarted_ms) for row in s.exec(select(Backend)).all()), default=0)
    batch = max(now_ms(), latest + 1)
    for row in rows:
        row.restart_ms = batch


def _withdraw(s: Session, batch: int | None) -> list[Backend]:
    query = select(Backend).where(col(Backend.restart_ms) > col(Backend.restarted_ms)).order_by(col(Backend.id))
    if batch is not None:
        query = query.where(Backend.restart_ms == batch)
    rows = list(s.exec(query).all())
    for row in rows:
        row.restart_ms = 0
    return rows
