"""One place for all tests of packs, and people of their own for each test."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.browser.runtimes import comfyui
from tests.cluster import Cluster
from tests.packs.place import SHARING, STOCK, WORKER, put_packs, start_backend, start_worker, wait_until_offered
from tests.real_comfyui import WHY_SKIPPED, configured
from tests.system.people import Someone

Newcomer = Callable[[str], Awaitable[Someone]]
COUNTER = itertools.count(1)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server whose sessions have the packs, over a backend of each level; all are real ComfyUIs with the packs."""
    if not configured():
        pytest.skip(WHY_SKIPPED)
    root = tmp_path_factory.mktemp("packs")
    public = root / "data" / "public" / "custom_nodes"
    public.mkdir(parents=True)
    put_packs(public)
    with ExitStack() as stack:
        stock = start_backend(root / "stock", STOCK)
        stack.callback(stock.stop)
        running = stack.enter_context(comfyui().start(root, "--engines", "0", "--backend", stock.url))
        for level, shared in ((WORKER, False), (SHARING, True)):
            stack.callback(start_worker(root / level.name, level, running, shared=shared).stop)
        watcher = running.user("watcher")
        for level in (STOCK, WORKER, SHARING):
            wait_until_offered(running, watcher, level.marker)
        yield running


@pytest.fixture
async def newcomer(cluster: Cluster) -> AsyncIterator[Newcomer]:
    """Makes accounts; their jobs are ended after the test."""
    people: list[Someone] = []

    async def make(name: str) -> Someone:
        unique = f"{name}-{os.getpid()}-{next(COUNTER)}"
        people.append(Someone(cluster, await asyncio.to_thread(cluster.user, unique)))
        return people[-1]

    yield make
    for someone in people:
        await someone.leave()
