"""/prompt, /queue, /history, /interrupt, /free, bare and under /api."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.engine.client import Client, connect, kinds
from tests.engine.graphs import default_graph, image_graph, node


@pytest.fixture
async def busy(comfy_url: str) -> AsyncIterator[str]:
    """The id of a job that runs while the test does."""
    async with connect(comfy_url) as other:
        prompt_id = await other.submit(default_graph("busy", steps=10_000))
        await other.until("progress")
        yield prompt_id
        await other.post("/queue", {"clear": True})
        await other.post("/interrupt", {})
        await other.until("executing", node=None, prompt_id=prompt_id)


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_both_forms_of_a_path(client: Client, prefix: str) -> None:
    assert await client.get(f"{prefix}/prompt") == {"exec_info": {"queue_remaining": 0}}
    assert await client.get(f"{prefix}/queue") == {"queue_running": [], "queue_pending": []}
    assert await client.get(f"{prefix}/history/none") == {}
    assert "SaveImage" in await client.get(f"{prefix}/object_info/SaveImage")
    status, _ = await client.post(f"{prefix}/interrupt", {})
    assert status == 200


async def test_prompt_answers_id_number_and_node_errors(client: Client) -> None:
    body: dict[str, Any] = {"prompt": image_graph(), "client_id": client.sid}
    _, first = await client.post("/prompt", body)
    _, second = await client.post("/prompt", body | {"prompt_id": "mine"})
    assert set(first) == {"prompt_id", "number", "node_errors"} and first["node_errors"] == {}
    assert second["prompt_id"] == "mine" and second["number"] == first["number"] + 1
    await client.until("executing", node=None, prompt_id="mine")


async def test_half_valid_prompts_run(client: Client) -> None:
    status, body = await client.post(
        "/prompt", {"prompt": image_graph(7) | {"3": node("PreviewImage")}, "client_id": client.sid}
    )
    assert status == 200
    assert body["node_errors"]["3"]["errors"][0]["type"] == "required_input_missing"
    await client.until("executing", node=None, prompt_id=body["prompt_id"])
    assert set((await client.get(f"/history/{body['prompt_id']}"))[body["prompt_id"]]["outputs"]) == {"2"}


async def test_partial_execution(client: Client) -> None:
    prompt = image_graph(8) | {"3": node("PreviewImage", images=["1", 0])}
    entry, _ = await client.run(prompt, partial_execution_targets=["3"])
    assert entry["prompt"][4] == ["3"] and set(entry["outputs"]) == {"3"}
    assert entry["outputs"]["3"]["images"][0]["type"] == "temp"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"prompt": []}',
        b'{"prompt": {"1": "x"}}',
        b'{"prompt": {"1": {"class_type": "SaveImage"}}}',
        b'{"prompt": {"1": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}}}',
        b'{"prompt": {}, "number": "x"}',
        b'{"prompt": {}, "number": NaN}',
        b'{"prompt": {}, "extra_data": []}',
        b'{"prompt": {}, "client_id": {}}',
        b'{"prompt": {}, "partial_execution_targets": 3}',
        b'{"prompt": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"prompt": {"1": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}}",
    ],
)
async def test_malformed_prompts_get_comfyuis_error(client: Client, body: bytes) -> None:
    async with client.http.post(f"{client.url}/prompt", data=body) as response:
        answer = await response.json()
        assert response.status == 400
    assert set(answer) == {"error", "node_errors"}
    assert set(answer["error"]) == {"type", "message", "details", "extra_info"}
    assert (await client.get("/prompt"))["exec_info"]["queue_remaining"] == 0


@pytest.mark.parametrize("path", ["/queue", "/history", "/free"])
@pytest.mark.parametrize("body", [b"{", b"[]", b"7"])
async def test_malformed_orders_are_refused(client: Client, path: str, body: bytes) -> None:
    async with client.http.post(client.url + path, data=body) as response:
        assert response.status == 400


async def test_pending_jobs_are_listed_ordered_and_deleted(client: Client, busy: str) -> None:
    ids = [await client.submit(image_graph(), prompt_id=name) for name in ("a", "b", "c")]
    await client.submit(image_graph(), prompt_id="first", front=True)
    await client.submit(image_graph(), prompt_id="last", number=1e6)
    queue = await client.get("/queue")
    assert [item[1] for item in queue["queue_running"]] == [busy]
    assert sorted(item[1] for item in queue["queue_pending"]) == sorted([*ids, "first", "last"])
    by_number = sorted(queue["queue_pending"], key=lambda item: item[0])
    assert [item[1] for item in by_number] == ["first", *ids, "last"]
    number, prompt_id, prompt, extra_data, outputs = by_number[1]
    assert (prompt_id, outputs, prompt) == ("a", ["2"], image_graph())
    assert extra_data["client_id"] == client.sid and isinstance(extra_data["create_time"], int)
    assert (await client.post("/queue", {"delete": ["b", "unknown"]}))[0] == 200
    assert len((await client.get("/queue"))["queue_pending"]) == 4
    assert (await client.post("/queue", {"clear": True}))[0] == 200
    assert (await client.get("/queue"))["queue_pending"] == []
    assert await client.get("/history/b") == {}
    assert number >= 0


async def test_tokens_are_not_shown(client: Client, busy: str) -> None:
    secrets = {"auth_token_comfy_org": "secret-1", "api_key_comfy_org": "secret-2"}
    await client.submit(image_graph(), extra_data=secrets | {"keep": 1})
    async with client.http.get(f"{client.url}/queue") as response:
        text = await response.text()
    assert "secret-" not in text and '"keep"' in text
    assert busy


async def test_interrupt_keeps_the_shape_of_the_history(client: Client) -> None:
    prompt_id = await client.submit(default_graph("stop me", steps=10_000))
    await client.until("progress")
    await client.post("/interrupt", {"prompt_id": "someone else's"})
    await client.until("progress")
    async with client.http.post(f"{client.url}/interrupt") as response:  # an empty body is fine
        assert response.status == 200
    frames = await client.until("executing", node=None, prompt_id=prompt_id)
    stopped = next(frame["data"] for frame in frames if frame["type"] == "execution_interrupted")
    assert (stopped["node_id"], stopped["node_type"], "70" in stopped["executed"]) == ("70", "KSampler", False)
    entry = (await client.get(f"/history/{prompt_id}"))[prompt_id]
    assert entry["status"]["status_str"] == "error" and entry["status"]["completed"] is False
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"


async def test_the_next_job_runs_after_an_interrupt(client: Client) -> None:
    await client.post("/interrupt", {})
    entry, frames = await client.run(image_graph(0x123456))
    assert entry["status"]["status_str"] == "success" and "execution_success" in kinds(frames)


async def test_history_pages_and_deletes(client: Client) -> None:
    await client.post("/history", {"clear": True})
    for name in ("h1", "h2", "h3"):
        await client.run(image_graph(), prompt_id=name)
    assert list(await client.get("/history")) == ["h1", "h2", "h3"]
    assert list(await client.get("/history?max_items=2")) == ["h2", "h3"]
    assert list(await client.get("/history?max_items=1&offset=1")) == ["h2"]
    assert list(await client.get("/history?offset=2")) == ["h3"]
    async with client.http.get(f"{client.url}/history?max_items=x") as response:
        assert response.status == 400
    await client.post("/history", {"delete": ["h2", {}]})
    assert list(await client.get("/history")) == ["h1", "h3"]
    await client.post("/history", {"clear": True})
    assert await client.get("/history") == {}


async def test_free_forgets_results_and_models(client: Client) -> None:
    await client.run(default_graph("free"))
    _, frames = await client.run(default_graph("free"))
    assert len(next(frame for frame in frames if frame["type"] == "execution_cached")["data"]["nodes"]) == 10
    await client.post("/free", {"unload_models": True, "free_memory": True})
    async with asyncio.timeout(10):
        while (await client.get("/engine"))["loaded_models"]:
            await asyncio.sleep(0.01)
    _, frames = await client.run(default_graph("free"))
    assert next(frame for frame in frames if frame["type"] == "execution_cached")["data"]["nodes"] == []


async def test_pages_of_other_sites_are_refused(client: Client) -> None:
    async with client.http.post(f"{client.url}/interrupt", headers={"Origin": "https://evil.example"}) as response:
        assert response.status == 403
    async with client.http.get(f"{client.url}/queue", headers={"Origin": client.url}) as response:
        assert response.status == 200
