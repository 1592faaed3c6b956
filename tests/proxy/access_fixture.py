"""An Access over a real database in a temporary directory, and requests to it as plain scopes."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from sqlmodel import SQLModel
from starlette.types import Scope

from proxy.access.access import Access, open_access
from proxy.access.logins import COOKIE
from proxy.base.database import Database, sqlite_url
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks

PASSWORD = "long enough"


@contextlib.asynccontextmanager
async def opened(data_dir: Path, **settings: float) -> AsyncIterator[tuple[Access, Database]]:
    """One server's Access; a second call with the same directory is a second server on the same database."""
    db = Database(sqlite_url(data_dir / "cluster.db"))
    SQLModel.metadata.create_all(db.writer)
    tasks = Tasks()
    access = open_access(Settings.model_validate({"data_dir": data_dir, **settings}), db, tasks)
    try:
        yield access, db
    finally:
        await access.close()
        await tasks.stop()
        db.close()


def request(path: str = "/", *, query: str = "", address: str = "10.0.0.1", cookie: str = "", token: str = "") -> Scope:
    """A request as uvicorn would hand it over."""
    headers = []
    if cookie:
        headers.append((b"cookie", f"{COOKIE}={cookie}".encode()))
    if token:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    return {
        "type": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": headers,
        "client": (address, 5000),
    }
