"""The control pages for tests in a real Chromium: a server with two accounts, and a window that nobody has used."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser, BrowserContext

from tests.chromium import launched
from tests.proxy.control_server import Server, serving


@pytest_asyncio.fixture(loop_scope="module")
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server with an administrator and one user; nothing looks at its backends for the length of a test."""
    async with serving(tmp_path, probe_interval_s=60) as running:
        await running.user("root", admin=True)
        await running.user("Ann")
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A Chromium for a module's tests."""
    async with launched() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A window of its own for each test."""
    async with await browser.new_context() as window:
        yield window
