"""A studio on disk with a session host of its own, on short paths, that leaves no process behind."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.user_sessions.studio import Studio, short_directory


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory whose path leaves room for sockets."""
    with short_directory() as path:
        yield path


@pytest.fixture
async def studio(place: Path) -> AsyncIterator[Studio]:
    """A running session host with the probe runtime, a database and a controller."""
    studio = Studio(place)
    try:
        await studio.open()
        yield studio
    finally:
        await studio.close()
