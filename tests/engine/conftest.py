"""Engines for the tests: one per module to share, and a factory for tests that break theirs."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.client import Client, connect
from tests.engines import Engine, start_engine

Start = Callable[..., Engine]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine shared by a module."""
    running = start_engine(tmp_path_factory.mktemp("engine"))
    yield running
    assert running.stop() == 0


@pytest.fixture
def comfy_url(engine: Engine) -> str:
    """Base URL of a server with ComfyUI's protocol."""
    return engine.url


@pytest.fixture
async def client(comfy_url: str) -> AsyncIterator[Client]:
    """A connected client that takes previews with metadata."""
    async with connect(comfy_url) as connected:
        yield connected


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start engines with arguments of one's own; they are killed at the end."""
    started: list[Engine] = []

    def begin(*args: str, name: str = "own") -> Engine:
        started.append(start_engine(tmp_path / name, *args))
        return started[-1]

    yield begin
    for running in started:
        running.kill()
