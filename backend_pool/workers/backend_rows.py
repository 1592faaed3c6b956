"""The row of a backend that somebody keeps, at its address, with its worker pack's row; within a transaction."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlmodel import Session, select

from backend_pool.model import Backend
from backend_pool.workers.address import place_of
from backend_pool.workers.tables import Worker
from proxy.base.backend_url import clean_url
from proxy.base.clock import now_ms
from proxy.base.errors import Conflict


@dataclass(frozen=True)
class Pack:
    """The worker pack of an instance: by which id it registers, with which token."""

    worker_id: str
    token_id: int


def place(
    s: Session, source: str, name: str, url: str, *, pack: Pack | None = None, kin: Collection[int | None] = ()
) -> Backend:
    """The row of that name, at that address from now on. Raises Conflict when somebody else's has either.

    `kin` are the same keeper's: the address of one that sleeps may be another's by now, with another secret.
    """
    address = clean_url(url)
    row = s.exec(select(Backend).where(Backend.name == name)).first()
    if row is not None and row.source != source:
        raise Conflict(f"There is a backend {name} that somebody has registered. Remove it: backend remove {name}")
    other = _at(s, address, name, kin)
    if other is not None:
        raise Conflict(f"The backend {other.name} has the address of {name}. Remove it: backend remove {other.name}")
    if row is None:
        row = Backend(name=name, url=address, source=source, created_ms=now_ms())
        s.add(row)
    row.url = address
    s.flush()
    _place_worker(s, row, pack)
    return row


def _at(s: Session, address: str, name: str, kin: Collection[int | None]) -> Backend | None:
    """Another's row with this address, however it is spelled."""
    where = place_of(address)
    others = s.exec(select(Backend).where(Backend.name != name)).all()
    return next((o for o in others if o.url == address or (o.id not in kin and place_of(o.url) == where)), None)


def remove(s: Session, row: Backend) -> None:
    """A backend and its worker's row."""
    _place_worker(s, row, None)
    s.delete(row)
    s.flush()


def _place_worker(s: Session, row: Backend, pack: Pack | None) -> None:
    query = select(Worker).where(Worker.backend_id == row.key)
    for worker in s.exec(query).all():
        if pack is None or (worker.id, worker.token_id) != (pack.worker_id, pack.token_id):
            s.delete(worker)
            s.flush()
    if pack is None:
        return
    known = s.get(Worker, pack.worker_id)
    if known is None:
        s.add(Worker(id=pack.worker_id, backend_id=row.key, token_id=pack.token_id))
    elif known.backend_id != row.key:
        raise Conflict(f"The worker of {row.name} is registered as another backend. Remove that one.")
    s.flush()
