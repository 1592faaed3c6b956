"""Health checks and metrics over a real server: what each kind of person gets, and what Prometheus reads."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proxy.control import Control
from proxy.health.routes import METRICS
from tests.proxy.control_server import Server, serving
from user_sessions.run_dir import host_socket, run_dir
from user_sessions.spawner import TOKEN_SUFFIX

METRICS_PATH = "/cluster/metrics"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as running:
        await running.user("root", admin=True)
        await running.user("ann")
        yield running


@pytest.fixture
async def mute_host(server: Server) -> AsyncIterator[None]:
    """Something listens where the session host should, and hangs up on everybody."""
    path = host_socket(run_dir(server.cluster.settings))
    path.with_suffix(TOKEN_SUFFIX).write_text("none")
    mute = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), path)
    async with mute:
        yield


async def figures(server: Server) -> dict[tuple[str, ...], float]:
    """Every sample an administrator reads: name and label values to number."""
    async with server.signed_in("root") as admin:
        answer = await admin.get(METRICS_PATH)
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def families(server: Server) -> set[str]:
    """Names of all metrics, as they are documented."""
    async with server.signed_in("root") as admin:
        text = (await admin.get(METRICS_PATH)).text
    found = text_string_to_metric_families(text)
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in found}


async def test_metrics_count_what_there_is(tmp_path: Path) -> None:
    async with serving(tmp_path, alive=True) as server:
        ann = await server.user("ann")
        await server.user("root", admin=True)
        await server.job(ann, {"1": {"class_type": "Unheard", "inputs": {}}}, "p1")
        seen = await figures(server)
        assert await families(server) == set(METRICS)
    assert seen["comfy_cluster_jobs", "queued"] == 1
    assert seen["comfy_cluster_backends", "up"] == 0
    assert seen["comfy_cluster_sessions",] == 0


async def test_metrics_without_a_session_host_lack_the_sessions_only(server: Server, mute_host: None) -> None:
    assert await families(server) == set(METRICS) - {"comfy_cluster_sessions"}


async def test_metrics_are_for_administrators(server: Server) -> None:
    async with server.signed_in("ann") as ann, server.browser() as nobody:
        refused = [await client.get(METRICS_PATH) for client in (ann, nobody)]
    assert [answer.status_code for answer in refused] == [403, 401]
    assert [answer.json()["error"]["type"] for answer in refused] == ["forbidden", "not_authenticated"]


async def test_a_bug_below_cluster_is_a_json_error() -> None:
    async def broken(_request: Request) -> Response:
        raise ValueError("a defect, and /its/path")

    transport = httpx.ASGITransport(Control([Route("/cluster/broken", broken)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        answer = await client.get("/cluster/broken")
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["type"] == "internal_error"
    assert error["extra_info"]["request_id"] == answer.headers["X-Request-Id"]
    assert "/its/path" not in answer.text
