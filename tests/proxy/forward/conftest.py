"""Runs the relay tests on asyncio's loop and on uvloop, which uvicorn takes where it is installed."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop's transports are classes of their own and write at other times."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
