"""Readiness on a real directory and database, with each thing broken on purpose, and what failures leave in the log."""

import asyncio
import logging
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proxy.api import errors as api_errors
from proxy.base.database import Database, sqlite_url
from proxy.base.errors import ClusterError, DatabaseUnavailable, DiskFull, NotFound
from proxy.base.seldom import Seldom
from proxy.base.tasks import Tasks
from proxy.control import Control
from proxy.health.readiness import KEPT_S, Readiness
from tests.proxy.control_server import serving
from user_sessions.child_spawner import ChildSpawner
from user_sessions.confinement import Confinement

PLENTY_MB = 1 << 40
"""More than any disk has."""


class Clock:
    """Time that stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(sqlite_url(tmp_path / "cluster.db"))
    yield database
    database.close()


def readiness(db: Database, data_dir: Path, clock: Clock, *, free_mb: int = 1) -> Readiness:
    run = Path(db.url.removeprefix("sqlite:///")).parent / "run"
    spawner = ChildSpawner(
        run, runtime="light", options={}, confinement=Confinement(), start_timeout_s=1, stop_timeout_s=1
    )
    return Readiness(db, data_dir, free_mb=free_mb, spawner=spawner, tasks=Tasks(), clock=clock)


async def test_nothing_is_wrong(db: Database, tmp_path: Path) -> None:
    assert await readiness(db, tmp_path, Clock()).problems() == []
    assert [path.name for path in tmp_path.iterdir() if path.is_file() and not path.name.startswith("cluster.db")] == []


async def test_a_database_that_cannot_grow(db: Database, tmp_path: Path) -> None:
    """As on a full disk: reading works, and so does a write transaction that changes nothing."""
    asked = readiness(db, tmp_path, Clock())
    db.write_now(lambda s: s.connection().execute(text("CREATE TABLE filler (a, b, c)")))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "cluster.db-wal").stat().st_size, before[1]))
    try:
        assert db.write_now(lambda s: s.connection().execute(text("SELECT 1")).scalar_one()) == 1
        found = await asked.problems()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert found == ["The database did not answer. Try again in a moment"]


async def test_a_directory_that_is_gone(db: Database, tmp_path: Path) -> None:
    (problem,) = await readiness(db, tmp_path / "gone", Clock()).problems()
    assert problem.startswith("the data directory cannot be written")


async def test_a_disk_that_is_nearly_full(db: Database, tmp_path: Path) -> None:
    (problem,) = await readiness(db, tmp_path, Clock(), free_mb=PLENTY_MB).problems()
    assert problem == f"the disk of the data directory has less than {PLENTY_MB} MiB left"


async def test_asking_often_writes_once(db: Database, tmp_path: Path) -> None:
    clock = Clock()
    asked = readiness(db, tmp_path, clock)

    def writes() -> int:
        """Grows with every commit that changed something."""
        with db.reader.connect() as connection:
            found = connection.execute(text("PRAGMA data_version")).scalar_one()
        assert isinstance(found, int)
        return found

    before = writes()
    await asyncio.gather(*(asked.problems() for _ in range(20)))
    once = writes()
    assert once > before
    clock.now += KEPT_S / 2
    await asked.problems()
    assert writes() == once
    clock.now += KEPT_S
    await asked.problems()
    assert writes() > once


async def test_readyz_names_the_full_disk(tmp_path: Path) -> None:
    async with serving(tmp_path, alive=True, free_space_mb=PLENTY_MB) as server, server.browser() as nobody:
        answer = await nobody.get("/cluster/readyz")
    assert answer.status_code == 503
    assert answer.json()["ready"] is False
    assert answer.json()["problems"] == [f"the disk of the data directory has less than {PLENTY_MB} MiB left"]


async def test_failures_of_ours_are_logged_once_per_kind_and_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(api_errors, "_seldom", Seldom(api_errors.LOGGED_EVERY_S, clock))
    thrown: list[ClusterError] = []

    async def broken(_request: Request) -> Response:
        raise thrown[-1]

    async def meet(error: ClusterError) -> None:
        thrown.append(error)
        assert (await client.get("/cluster/x")).status_code == error.status

    transport = httpx.ASGITransport(Control([Route("/cluster/x", broken)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        for error in (DiskFull("no room"), DiskFull("no room"), DatabaseUnavailable("locked"), NotFound("what?")):
            await meet(error)
        clock.now += api_errors.LOGGED_EVERY_S
        await meet(DiskFull("no room"))
    seen = [
        (r.levelno, vars(r)["cluster_fields"]["reason"], vars(r)["cluster_fields"]["like_it_before"])
        for r in caplog.records
        if r.name == "proxy.api.errors"
    ]
    assert seen == [(logging.ERROR, "no room", 0), (logging.WARNING, "locked", 0), (logging.ERROR, "no room", 1)]
