"""Engines for the pool's tests: two to share, and a factory for tests that break theirs. Databases of each kind."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from sqlmodel import SQLModel

from backend_pool.jobs.queries import JobQueries
from backend_pool.jobs.store import JobStore
from proxy.base.database import Database, sqlite_url
from tests.engines import Engine, start_engine
from tests.postgres import Postgres, missing

Start = Callable[..., Engine]


@pytest.fixture(scope="session")
def shared_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Engine]]:
    """Two engines that no test breaks."""
    running = [start_engine(tmp_path_factory.mktemp("engine")) for _ in range(2)]
    yield running
    for engine in running:
        engine.stop()


@pytest.fixture
def urls(shared_engines: list[Engine]) -> list[str]:
    """Addresses of the shared engines."""
    return [engine.url for engine in shared_engines]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start engines with arguments of one's own; they are killed at the end."""
    started: list[Engine] = []

    def begin(*args: str, name: str = "") -> Engine:
        started.append(start_engine(tmp_path / (name or f"engine-{len(started)}"), *args))
        return started[-1]

    yield begin
    for running in started:
        running.kill()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL of our own, running; who stops it starts it again."""
    problem = missing()
    if problem is not None:
        pytest.skip(problem)
    server = Postgres(tmp_path_factory.mktemp("postgres"))
    server.start()
    yield server
    server.stop("immediate")


@pytest.fixture
def postgres(postgres_server: Postgres) -> str:
    """Its URL."""
    return postgres_server.url


@pytest.fixture(params=["sqlite", "postgresql"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database of each kind."""
    url = sqlite_url(tmp_path / "cluster.db") if request.param == "sqlite" else request.getfixturevalue("postgres")
    database = Database(url)
    SQLModel.metadata.drop_all(database.writer)
    SQLModel.metadata.create_all(database.writer)
    yield database
    await asyncio.to_thread(database.close)


@pytest.fixture
def store(db: Database) -> JobStore:
    """At most five waiting jobs and three finished ones per user."""
    return JobStore(db, queue_limit=5, history_limit=3)


@pytest.fixture
def queries(db: Database) -> JobQueries:
    """Reads."""
    return JobQueries(db)
