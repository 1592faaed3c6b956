"""A server for all browser tests of a process, a Chromium for them, and people with a window of their own."""

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import pytest_asyncio
from PIL import Image
from playwright.async_api import Browser

from tests import chromium
from tests.browser.graphs import plain_picture
from tests.browser.runtimes import RUNTIMES, Runtime
from tests.browser.visitor import Visitor
from tests.cluster import Cluster

Visit = Callable[..., Awaitable[Visitor]]
COUNTER = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/browser" in str(item.path):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """What sessions run: each test runs over all."""
    made = request.param()
    assert isinstance(made, Runtime)
    return made


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, runtime: Runtime) -> Iterator[Cluster]:
    """A server with two engines, shared; its operator has put a pack with an example workflow into place."""
    root = tmp_path_factory.mktemp(runtime.name)
    examples = root / "data" / "public" / "custom_nodes" / "house" / "example_workflows"
    examples.mkdir(parents=True)
    (examples.parent / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    (examples / "House style.json").write_text(json.dumps(plain_picture()))
    Image.new("RGB", (300, 300), "forestgreen").save(examples / "House style.jpg")
    with runtime.start(root, "--engines", "2") as running:
        yield running


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    async with chromium.launched() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="package")
async def visit(browser: Browser, cluster: Cluster) -> AsyncIterator[Visit]:
    """Makes people who have signed in, each in a window of their own; their windows are closed in the end."""
    visitors: list[Visitor] = []

    async def make(name: str) -> Visitor:
        unique = f"{name}-{os.getpid()}-{next(COUNTER)}"
        person = await asyncio.to_thread(cluster.user, unique)
        context = await chromium.window(browser)
        visitors.append(Visitor(cluster, person, context, await chromium.tab(context)))
        await visitors[-1].sign_in()
        return visitors[-1]

    yield make
    for visitor in visitors:
        assert visitor.problems() == []
        await visitor.leave()
