"""/api/jobs: list, filters, order, pages, one, cancel."""

from typing import Any

import pytest

from backend_pool.engine.jobs import ordered, summary
from tests.engine.client import Client
from tests.engine.graphs import default_graph, image_graph

FIRST, SECOND = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


def workflow(name: str) -> dict[str, Any]:
    return {"extra_pnginfo": {"workflow": {"id": name}}}


async def test_a_finished_job(client: Client) -> None:
    entry, _ = await client.run(image_graph(1), prompt_id=FIRST, extra_data=workflow("w1"))
    (job,) = (await client.get("/api/jobs?workflow_id=w1"))["jobs"]
    assert job["id"] == FIRST and job["status"] == "completed" and job["workflow_id"] == "w1"
    assert job["execution_end_time"] >= job["execution_start_time"] >= job["create_time"]
    assert job["outputs_count"] == 1
    assert job["preview_output"] == entry["outputs"]["2"]["images"][0] | {"nodeId": "2", "mediaType": "images"}
    whole = await client.get(f"/api/jobs/{FIRST}")
    assert whole["outputs"] == entry["outputs"] and whole["execution_status"] == entry["status"]
    assert whole["workflow"]["prompt"] == image_graph(1)


async def test_running_pending_and_cancelled_jobs(client: Client) -> None:
    await client.submit(default_graph("jobs", steps=10_000), prompt_id=FIRST)
    await client.submit(image_graph(2), prompt_id=SECOND)
    await client.until("progress")
    page = await client.get("/api/jobs?status=in_progress,pending&sort_order=asc")
    assert [(job["id"], job["status"]) for job in page["jobs"]] == [(FIRST, "in_progress"), (SECOND, "pending")]
    assert page["pagination"] == {"offset": 0, "limit": None, "total": 2, "has_more": False}
    assert (await client.get(f"/api/jobs/{SECOND}"))["status"] == "pending"
    assert await client.post(f"/api/jobs/{SECOND}/cancel", {}) == (200, {"cancelled": True})
    assert await client.post(f"/api/jobs/{SECOND}/cancel", {}) == (200, {"cancelled": False})
    assert await client.post("/api/jobs/cancel", {"job_ids": [FIRST, SECOND]}) == (200, {"cancelled": True})
    await client.until("executing", node=None, prompt_id=FIRST)
    assert (await client.get(f"/api/jobs/{FIRST}"))["status"] == "cancelled"
    assert FIRST in [job["id"] for job in (await client.get("/api/jobs?status=cancelled"))["jobs"]]


@pytest.mark.parametrize(
    "query",
    ["status=nope", "sort_by=x", "sort_order=x", "limit=0", "limit=x", "offset=x"],
)
async def test_bad_queries(client: Client, query: str) -> None:
    async with client.http.get(f"{client.url}/api/jobs?{query}") as response:
        assert response.status == 400 and set(await response.json()) == {"error"}


async def test_unknown_jobs_and_bad_ids(client: Client) -> None:
    async with client.http.get(f"{client.url}/api/jobs/none") as response:
        assert (response.status, await response.json()) == (404, {"error": "Job not found"})
    status, body = await client.post("/api/jobs/cancel", {"job_ids": ["x"]})
    assert (status, body["invalid_ids"]) == (400, ["x"])
    async with client.http.get(f"{client.url}/jobs") as response:
        assert response.status == 404
    assert "jobs" in await client.get("/api/api/jobs")


async def test_pages(client: Client) -> None:
    await client.post("/history", {"clear": True})
    for name in ("p1", "p2", "p3"):
        await client.run(image_graph(), prompt_id=name)
    page = await client.get("/api/jobs?limit=2&offset=1&sort_order=asc")
    assert [job["id"] for job in page["jobs"]] == ["p2", "p3"]
    assert page["pagination"] == {"offset": 1, "limit": 2, "total": 3, "has_more": False}
    assert (await client.get("/api/jobs?limit=1"))["pagination"]["has_more"] is True


async def test_extra_data_of_any_shape(client: Client) -> None:
    shapes: list[Any] = [[], None, {"workflow": None}, {"workflow": {"id": 5}}]
    for number, odd in enumerate(shapes):
        await client.run(image_graph(number + 50), extra_data={"extra_pnginfo": odd})
    assert (await client.get("/api/jobs"))["jobs"]


def test_a_saved_file_is_shown_before_a_temporary_one() -> None:
    outputs = {
        "1": {"images": [{"filename": "t.png", "type": "temp"}], "text": ["x"], "animated": [True]},
        "2": {"3d": [{"filename": "m.GLB", "type": "output"}]},
    }
    count, shown = summary(outputs)
    assert count == 2 and shown is not None and shown["filename"] == "m.GLB"
    assert summary({}) == (0, None)


def test_order_by_duration() -> None:
    jobs = [
        {"id": "quick", "create_time": 2, "execution_start_time": 10, "execution_end_time": 11},
        {"id": "slow", "create_time": 1, "execution_start_time": 10, "execution_end_time": 20},
        {"id": "waiting", "create_time": 3},
    ]
    assert [job["id"] for job in ordered(jobs, "execution_duration", "desc")] == ["slow", "quick", "waiting"]
    assert [job["id"] for job in ordered(jobs, "created_at", "asc")] == ["slow", "quick", "waiting"]
