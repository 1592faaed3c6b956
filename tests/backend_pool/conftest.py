"""Engines for the pool's tests: two to share, and a factory for tests that break theirs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
