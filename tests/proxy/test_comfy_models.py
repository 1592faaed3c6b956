"""Model lists over several backends, on real engines."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from proxy.comfy.models import ModelRoutes
from tests.backend_pool.rig import WAIT_S, rig
from tests.engines import Engine, start_engine


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[list[Engine]]:
    """Two with a checkpoint each."""
    names = ("a.safetensors", "b.safetensors")
    started = [start_engine(tmp_path / name, "--checkpoints", name) for name in names]
    yield started
    for engine in started:
        engine.kill()


async def answer(handler: Callable[[Request], Awaitable[Response]], **params: str) -> Any:
    """The JSON of a handler."""
    response = await handler(Request({"type": "http", "path_params": params, "query_string": b"", "headers": []}))
    return json.loads(bytes(response.body))


async def test_a_backend_that_hangs_keeps_its_models(tmp_path: Path, engines: list[Engine]) -> None:
    """Its last answer stands in, and nobody waits longer than for one probe."""
    urls = [engine.url for engine in engines]
    async with rig(tmp_path, *urls, backend_down_after_s=60, probe_timeout_s=0.5) as r:
        routes = ModelRoutes(r.pool)

        async def names() -> list[str]:
            return sorted(entry["name"] for entry in await answer(routes.experiment_models_in, folder="checkpoints"))

        both = ["a.safetensors", "b.safetensors"]
        async with asyncio.timeout(WAIT_S):
            while not await names() == sorted(await answer(routes.models_in, folder="checkpoints")) == both:
                routes._answers.clear()  # a busy machine's engine may have taken longer than a probe may
        engines[0].process.send_signal(signal.SIGSTOP)
        routes._answers = {key: (-1e9, kept) for key, (_, kept) in routes._answers.items()}  # as after KEPT_S
        assert await names() == sorted(await answer(routes.models_in, folder="checkpoints")) == both
