"""The worker token with which a server's own ComfyUIs register: made once, kept beside them, made anew when revoked."""

import os
from pathlib import Path

from sqlmodel import Session

from backend_pool.workers.tokens import create_now, find
from proxy.base.database import Database

NAME = "this server's own"


def own_token(db: Database, path: Path) -> tuple[str, int]:
    """The token and its row's id. Blocking. Raises ClusterError, OSError."""
    try:
        token = path.read_text().strip()
    except FileNotFoundError:
        token = ""
    known = db.read_now(lambda s: _id_of(s, token))
    if known is None:
        token = create_now(db, NAME)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.part")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
            file.write(token)
        partial.replace(path)
        known = db.read_now(lambda s: _id_of(s, token))
    assert known is not None
    return token, known


def _id_of(s: Session, token: str) -> int | None:
    row = find(s, token) if token else None
    return None if row is None else row.id
