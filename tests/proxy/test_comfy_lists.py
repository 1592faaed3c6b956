"""Long queues and histories over HTTP: the same JSON, sent in parts, whatever is in it."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from backend_pool.comfy.result import Result
from backend_pool.job_state import JobState
from backend_pool.jobs.submission import Submission
from proxy.access.accounts import User
from proxy.comfy import stream as comfy_stream
from tests.proxy.control_server import Server, serving

ODD = '\ud800 \U0001f98a "'
TEXT = "x" * 30_000


async def submitted(server: Server, user: User, number: int) -> None:
    new = Submission(user.key, f"p{number}", None, {"1": {"class_type": ODD}}, {"note": TEXT}, ["1"])
    await server.store.submit(new)


def whole(answer: httpx.Response) -> Any:
    """The JSON of an answer that must have come in parts, or not."""
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.content.isascii()
    return answer.json()


@pytest.mark.parametrize("size", [1_000, comfy_stream.WHOLE_SIZE])
async def test_lists_are_the_same_in_parts_and_whole(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfy_stream, "WHOLE_SIZE", size)
    in_parts = size == 1_000
    async with serving(tmp_path) as server:
        ann = await server.user("Ann")
        for number in range(6):
            await submitted(server, ann, number)
        async with server.signed_in("Ann") as browser:
            first = await server.store.assign(1, 1)
            assert first is not None
            answer = await browser.get("/queue")
            assert ("content-length" not in answer.headers) is in_parts
            queue = whole(answer)
            assert [item[1] for item in queue["queue_running"]] == ["p0"]
            assert [item[1] for item in queue["queue_pending"]] == ["p1", "p2", "p3", "p4", "p5"]
            assert queue["queue_pending"][0][2:4] == [{"1": {"class_type": ODD}}, queue["queue_pending"][0][3]]
            assert queue["queue_pending"][0][3]["note"] == TEXT
            await server.store.finish(first, JobState.SUCCEEDED, Result({"1": {"text": [ODD]}}), "test")
            for seq in range(2, 7):
                job = await server.store.assign(seq, 1)
                assert job is not None
                await server.store.finish(job, JobState.FAILED, Result(), "test")
            answer = await browser.get("/api/history")
            assert ("content-length" not in answer.headers) is in_parts
            history = whole(answer)
            assert list(history) == [f"p{number}" for number in range(6)]
            assert history["p0"]["outputs"] == {"1": {"text": [ODD]}} and history["p5"]["prompt"][3]["note"] == TEXT
            assert whole(await browser.get("/queue")) == {"queue_running": [], "queue_pending": []}
            answer = await browser.get("/api/jobs?sort_order=asc")
            assert ("content-length" not in answer.headers) is in_parts
            listed = whole(answer)
            assert [job["id"] for job in listed["jobs"]] == [f"p{number}" for number in range(6)]
            assert listed["pagination"] == {"offset": 0, "limit": None, "total": 6, "has_more": False}


async def test_empty_lists(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.user("Ann")
        async with server.signed_in("Ann") as browser:
            assert whole(await browser.get("/history")) == {}
            assert whole(await browser.get("/queue")) == {"queue_running": [], "queue_pending": []}


async def test_the_jobs_list_reads_nothing_that_was_submitted(tmp_path: Path) -> None:
    """Its columns are not loaded: touching them would fail."""
    async with serving(tmp_path) as server:
        ann = await server.user("Ann")
        await submitted(server, ann, 0)
        async with server.signed_in("Ann") as browser:
            (job,) = whole(await browser.get("/api/jobs"))["jobs"]
            detail = whole(await browser.get("/api/jobs/p0"))
            assert detail["workflow"]["extra_data"]["create_time"] == job["create_time"] == detail["create_time"]
