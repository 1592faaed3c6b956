"""The backends an operator has named, as rows: add, list, change, remove. Health is observed, not stored."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from backend_pool.backends.change import Change
from backend_pool.backends.labels import cleaned
from backend_pool.model import Backend, BackendMode
from proxy.base.backend_url import clean_url, shown_url
from proxy.base.clock import now_ms
from proxy.base.database import Database
from proxy.base.errors import BadInput, Conflict, NotFound

MAX_NAME = 64
REMOVABLE = ("registered", "worker", "agent")
"""Others come from this server's settings. A worker or an agent that lives brings its backends back."""


class Registry:
    """Rows of the table `backends`; the methods ending in `_now` block and are for the command line."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def listing(self) -> list[Backend]:
        """All backends, oldest first."""
        return await self._db.read(_all)

    def listing_now(self) -> list[Backend]:
        """All backends, oldest first."""
        return self._db.read_now(_all)

    async def add(
        self, url: str, name: str | None = None, source: str = "registered", labels: Sequence[str] = ()
    ) -> Backend:
        """Register a ComfyUI by URL. BadInput for an unusable URL or label, Conflict for a taken name or URL."""
        return await self._db.write(lambda s: _add(s, url, name, source, labels))

    def add_now(self, url: str, name: str | None = None, labels: Sequence[str] = ()) -> Backend:
        """Register a ComfyUI by URL."""
        return self._db.write_now(lambda s: _add(s, url, name, "registered", labels))

    async def ensure(self, url: str, name: str | None, source: str) -> Backend:
        """The backend of a URL, registered if it is not yet."""

        def work(s: Session) -> Backend:
            found = s.exec(select(Backend).where(Backend.url == clean_url(url))).first()
            return found or _add(s, url, name, source)

        return await self._db.write(work)

    async def keep_only(self, source: str, urls: list[str]) -> None:
        """Forget backends of a source that are not configured any more, so that removing a flag removes the backend."""
        wanted = [clean_url(url) for url in urls]

        def work(s: Session) -> None:
            for row in s.exec(select(Backend).where(Backend.source == source, col(Backend.url).not_in(wanted))).all():
                s.delete(row)

        await self._db.write(work)

    async def set_mode(self, backend_id: int, mode: BackendMode) -> Backend:
        """Active, draining or disabled."""
        return await self.change(backend_id, Change(mode=mode))

    async def change(self, backend_id: int, change: Change) -> Backend:
        """What an operator wants otherwise. Raises BadInput, Conflict, NotFound."""
        return await self._db.write(lambda s: _changed(_get(s, backend_id), change))

    def change_now(self, which: str, change: Change) -> Backend:
        """`change` by name or id."""
        return self._db.write_now(lambda s: _changed(named(s, which), change))

    async def quarantine(self, backend_id: int, why: str) -> Backend:
        """Give it no jobs until a trial job has succeeded, or somebody trusts it; the time is that of the first."""
        return await self._db.write(lambda s: _quarantined(_get(s, backend_id), why))

    async def remove(self, backend_id: int) -> None:
        """Forget a backend; a job it runs is carried on elsewhere."""
        await self._db.write(lambda s: s.delete(_get(s, backend_id)))

    async def ask_refresh(self, backend_id: int) -> Backend:
        """Have a running server read its nodes and models again."""
        return await self._db.write(lambda s: _refreshed(_get(s, backend_id)))

    def ask_refresh_now(self, which: str) -> Backend:
        """`ask_refresh` by name or id."""
        return self._db.write_now(lambda s: _refreshed(named(s, which)))

    def remove_now(self, which: str) -> Backend:
        """`remove` by name or id. Conflict for one that the settings bring back at the next start."""

        def work(s: Session) -> Backend:
            row = named(s, which)
            if row.source not in REMOVABLE:
                raise Conflict(
                    f"Backend {row.name} comes from the server's settings. Disable it, or take it out of them."
                )
            s.delete(row)
            return row

        return self._db.write_now(work)


def _all(s: Session) -> list[Backend]:
    return list(s.exec(select(Backend).order_by(col(Backend.id))).all())


def _get(s: Session, backend_id: int) -> Backend:
    row = s.get(Backend, backend_id)
    if row is None:
        raise NotFound(f"There is no backend {backend_id}.")
    return row


def named(s: Session, which: str) -> Backend:
    """By name, else by id: a name may be a number."""
    row = s.exec(select(Backend).where(Backend.name == which)).first()
    if row is None and which.isascii() and which.isdecimal():
        row = s.get(Backend, min(int(which), 2**63 - 1))
    if row is None:
        raise NotFound(f"There is no backend {which[:80]!r}. `backend list` shows them.")
    return row


def _changed(row: Backend, change: Change) -> Backend:
    change.apply(row)
    return row


def _quarantined(row: Backend, why: str) -> Backend:
    row.quarantine, row.quarantine_ms = why, row.quarantine_ms or now_ms()
    return row


def _refreshed(row: Backend) -> Backend:
    row.refresh_ms = max(now_ms(), row.refresh_ms + 1)
    return row


def _add(s: Session, url: str, name: str | None, source: str, labels: Sequence[str] = ()) -> Backend:
    address = clean_url(url)
    label = (name or urlsplit(address).netloc.rpartition("@")[2]).strip()
    if not label or len(label) > MAX_NAME or not label.isprintable():
        raise BadInput(f"A backend's name has 1 to {MAX_NAME} printable characters.")
    row = Backend(name=label, url=address, source=source, labels=cleaned(labels), created_ms=now_ms())
    s.add(row)
    try:
        s.flush()
    except IntegrityError as error:
        raise Conflict(f"A backend named {label} or at {shown_url(address)} is registered already.") from error
    return row
