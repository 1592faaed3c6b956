"""Whose an agent's instances are: each row is bound to the token that brought it, and no other agent speaks for it."""

from sqlmodel import Session, col, func, select

from backend_pool.model import Backend
from backend_pool.workers.backend_rows import Pack, place, remove
from backend_pool.workers.limits import MAX_WORKERS
from backend_pool.workers.tables import AgentInstance, Worker, WorkerToken
from proxy.base.errors import Conflict

SOURCE = "agent"


def standing(s: Session, token_id: int, key: str, url: str | None, worker_id: str | None) -> int | None:
    """The backend of an instance that is registered just so. Raises Conflict for another token's."""
    row = _own(s, token_id, key)
    if row is None or row.token_id != token_id:
        return None
    backend = s.get(Backend, row.backend_id)
    if backend is None or (url is not None and backend.url != url):
        return None
    worker = None if worker_id is None else s.get(Worker, worker_id)
    same = worker_id is None or (worker is not None and worker.backend_id == row.backend_id)
    return row.backend_id if same else None


def register(s: Session, token_id: int, key: str, *, labels: list[str], url: str, worker_id: str | None) -> int:
    """Give an instance its backend, at its address. `labels` are names to try. Raises Conflict."""
    row = _own(s, token_id, key)
    backend = None if row is None else s.get(Backend, row.backend_id)
    if row is None:
        count = select(func.count()).select_from(AgentInstance).where(AgentInstance.token_id == token_id)
        if s.exec(count).one() >= MAX_WORKERS:
            raise Conflict(f"This token has {MAX_WORKERS} instances already. Remove those that are gone.")
        taken = set(s.exec(select(Backend.name).where(col(Backend.name).in_(labels))).all())
        name = next((label for label in labels if label not in taken), None)
        if name is None:
            raise Conflict(f"There is a backend {labels[0]} already. Give this agent another --name.")
    else:
        assert backend is not None
        name = backend.name
        row.token_id = token_id
    pack = None if worker_id is None else Pack(worker_id, token_id)
    kin = [own.id for own in of_token(s, token_id)]
    placed = place(s, SOURCE, name, url, pack=pack, kin=kin)
    if row is None:
        s.add(AgentInstance(id=key, backend_id=placed.key, token_id=token_id))
    return placed.key


def of_token(s: Session, token_id: int) -> list[Backend]:
    """The backends that a token has brought by its agents."""
    query = select(Backend).where(AgentInstance.backend_id == Backend.id, AgentInstance.token_id == token_id)
    return list(s.exec(query).all())


def remove_of_token(s: Session, token_id: int) -> list[str]:
    """Take them away; their names."""
    found = of_token(s, token_id)
    for row in s.exec(select(AgentInstance).where(AgentInstance.token_id == token_id)).all():
        s.delete(row)
    s.flush()
    for backend in found:
        remove(s, backend)
    return [backend.name for backend in found]


def _own(s: Session, token_id: int, key: str) -> AgentInstance | None:
    row = s.get(AgentInstance, key)
    if row is None or row.token_id == token_id:
        return row
    owner = s.get(WorkerToken, row.token_id)
    if owner is not None and owner.revoked_ms is None:
        raise Conflict(f"This agent's instances are registered with the token {owner.name!r}. Revoke that one first.")
    return row
