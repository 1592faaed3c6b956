"""Tokens that workers and agents register with.

Stored as its SHA-256, one may do nothing but register. Revoking one takes its backends away.
"""

from sqlmodel import Session, col, select

from backend_pool.model import Backend
from backend_pool.workers.agent_rows import of_token, remove_of_token
from backend_pool.workers.tables import Worker, WorkerToken
from proxy.base.clock import now_ms
from proxy.base.database import Database
from proxy.base.errors import BadInput, NotFound
from proxy.base.names import hash_of, new_secret

PREFIX = "cwt_"
SHOWN = len(PREFIX) + 6
MAX_NAME = 64


def find(session: Session, token: str) -> WorkerToken | None:
    """The row of a token that still counts."""
    query = select(WorkerToken).where(WorkerToken.token_hash == hash_of(token), col(WorkerToken.revoked_ms).is_(None))
    return session.exec(query).one_or_none()


def create_now(db: Database, name: str) -> str:
    """A new token, which cannot be had again. Blocking."""
    label = name.strip()
    if not label or len(label) > MAX_NAME or not label.isprintable():
        raise BadInput(f"A token needs a name of 1 to {MAX_NAME} printable characters.")
    secret = PREFIX + new_secret()

    def work(session: Session) -> str:
        session.add(WorkerToken(name=label, token_hash=hash_of(secret), prefix=secret[:SHOWN], created_ms=now_ms()))
        return secret

    return db.write_now(work)


def listing_now(db: Database) -> list[tuple[WorkerToken, list[str]]]:
    """Tokens that count, oldest first, each with the names of its backends. Blocking."""

    def work(session: Session) -> list[tuple[WorkerToken, list[str]]]:
        tokens = session.exec(select(WorkerToken).where(col(WorkerToken.revoked_ms).is_(None))).all()
        return [(token, _backends(session, token)) for token in sorted(tokens, key=lambda token: token.id or 0)]

    return db.read_now(work)


def levels_now(db: Database) -> dict[int, str]:
    """The level of backends that have the pack. Blocking."""
    return db.read_now(lambda s: {worker.backend_id: "worker pack" for worker in s.exec(select(Worker)).all()})


def revoke_now(db: Database, which: str) -> tuple[WorkerToken, list[str]]:
    """Revoke by id, or by a name that one alone has; its backends leave the pool. Raises NotFound, BadInput."""

    def work(session: Session) -> tuple[WorkerToken, list[str]]:
        valid = select(WorkerToken).where(col(WorkerToken.revoked_ms).is_(None))
        found = [token for token in session.exec(valid).all() if which in (token.name, str(token.id))]
        if not found:
            raise NotFound(f"There is no worker token {which!r}. `worker-pack tokens` shows them.")
        if len(found) > 1:
            raise BadInput(f"{len(found)} tokens are called {which!r}. Give the id instead.")
        names = _backends(session, found[0])
        for worker in session.exec(select(Worker).where(Worker.token_id == found[0].id)).all():
            row = session.get(Backend, worker.backend_id)
            session.delete(worker)
            session.flush()  # else the database, which deletes it with its backend, is asked for it twice
            if row is not None:
                session.delete(row)
        found[0].revoked_ms = now_ms()
        assert found[0].id is not None
        return found[0], sorted({*names, *remove_of_token(session, found[0].id)})

    return db.write_now(work)


def _backends(session: Session, token: WorkerToken) -> list[str]:
    query = select(Backend.name).where(Worker.backend_id == Backend.id, Worker.token_id == token.id)
    by_agents = [] if token.id is None else [backend.name for backend in of_token(session, token.id)]
    return sorted({*session.exec(query).all(), *by_agents})
