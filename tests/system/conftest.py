"""One whole server per test process for tests that leave it as it was, and people of their own for each test."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from tests.cluster import Cluster, start_cluster
from tests.system.people import Someone

Newcomer = Callable[..., Awaitable[Someone]]
COUNTER = itertools.count(1)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server with two engines, shared; nothing of it may be stopped or killed by a test."""
    with start_cluster(tmp_path_factory.mktemp("shared"), "--engines", "2") as running:
        yield running


@pytest.fixture
async def newcomer(cluster: Cluster) -> AsyncIterator[Newcomer]:
    """Makes accounts; their jobs are ended after the test."""
    people: list[Someone] = []

    async def make(name: str = "user", *, admin: bool = False) -> Someone:
        unique = f"{name}-{os.getpid()}-{next(COUNTER)}"
        people.append(Someone(cluster, await asyncio.to_thread(cluster.user, unique, admin=admin)))
        return people[-1]

    yield make
    for someone in people:
        await someone.leave()


@pytest.fixture
async def ann(newcomer: Newcomer) -> Someone:
    """A user nobody knows yet."""
    return await newcomer("ann")


@pytest.fixture
async def ben(newcomer: Newcomer) -> Someone:
    """Another one."""
    return await newcomer("ben")
