"""Corners of the protocol that clients rely on, on each server alike: ids, targets, sorting, paging, HEAD."""

import uuid
from typing import Any

import pytest

from tests.contract import graphs
from tests.contract.wire import Comfy, Frame

NESTED = "57:8"
LOOPED = "12.0.0.3"


async def finished(comfy: Comfy, prompt: graphs.Prompt, **more: Any) -> tuple[str, list[Frame]]:
    client_id = uuid.uuid4().hex
    async with comfy.socket(client_id) as socket:
        prompt_id = await comfy.submit(prompt, client_id, **more)
        return prompt_id, await socket.job(prompt_id)


def traced(workflow: str, **more: Any) -> dict[str, Any]:
    return {"extra_data": {"extra_pnginfo": {"workflow": {"id": workflow}}, **more}}


async def test_ids_of_subgraphs_and_loops_pass_unchanged(comfy: Comfy) -> None:
    prompt = {
        NESTED: graphs.empty_image(6001),
        LOOPED: graphs.node("SaveImage", images=[NESTED, 0], filename_prefix="nested"),
    }
    prompt_id, frames = await finished(comfy, prompt)
    assert [f.data["node"] for f in frames if f.kind == "executing"] == [NESTED, LOOPED, None]
    (executed,) = (frame for frame in frames if frame.kind == "executed")
    assert (executed.data["node"], executed.data["display_node"]) == (LOOPED, LOOPED)
    entry = await comfy.history(prompt_id)
    assert list(entry["outputs"]) == list(entry["meta"]) == [LOOPED]


async def test_only_the_targets_run(comfy: Comfy) -> None:
    prompt = graphs.two_outputs(graphs.empty_image(6002))
    prompt_id, frames = await finished(comfy, prompt, partial_execution_targets=["5"])
    assert "4" not in {frame.data["node"] for frame in frames if frame.kind == "executing"}
    entry = await comfy.history(prompt_id)
    assert (entry["prompt"][2], entry["prompt"][4], list(entry["outputs"])) == (prompt, ["5"], ["5"])


async def test_targets_that_are_no_outputs_are_refused(comfy: Comfy) -> None:
    body = {"prompt": graphs.saved(6003), "partial_execution_targets": ["1"]}
    answer = await comfy.post("/prompt", body)
    assert (answer.status, answer.json()["error"]["type"]) == (400, "prompt_no_outputs")


async def test_the_server_says_when_a_prompt_came(comfy: Comfy) -> None:
    prompt_id, _ = await finished(comfy, graphs.saved(6004), **traced("times", create_time=5, own={"key": 1}))
    extra_data = (await comfy.history(prompt_id))["prompt"][3]
    assert extra_data["create_time"] > 1_600_000_000_000
    assert extra_data["own"] == {"key": 1}
    assert (await comfy.get(f"/api/jobs/{prompt_id}")).json()["create_time"] == extra_data["create_time"]


async def test_the_callers_id_is_the_jobs(comfy: Comfy) -> None:
    wanted = str(uuid.uuid4())
    prompt_id, frames = await finished(comfy, graphs.saved(6005), prompt_id=wanted)
    assert prompt_id == wanted
    assert {frame.data["prompt_id"] for frame in frames} == {wanted}
    await finished(comfy, graphs.saved(6006), prompt_id=wanted)  # a finished one gives way
    assert (await comfy.history(wanted))["prompt"][2]["1"]["inputs"]["color"] == 6006


async def test_a_cached_result_without_a_client_is_told_by_the_history_alone(comfy: Comfy) -> None:
    prompt_id, _ = await finished(comfy, graphs.saved(6007))
    alone = (await comfy.post("/prompt", {"prompt": graphs.saved(6008)})).json()["prompt_id"]
    await finished(comfy, graphs.saved(6009))  # one job after the other
    assert (await comfy.history(alone))["outputs"]["2"]["images"]
    assert "client_id" not in (await comfy.history(alone))["prompt"][3]
    assert (await comfy.history(prompt_id))["prompt"][3]["client_id"]


async def test_jobs_are_filtered_sorted_and_paged(comfy: Comfy) -> None:
    workflow = uuid.uuid4().hex
    made = [(await finished(comfy, graphs.saved(6010 + number), **traced(workflow)))[0] for number in range(3)]

    async def listed(query: str) -> tuple[list[str], dict[str, Any]]:
        answer = (await comfy.get(f"/api/jobs?workflow_id={workflow}&{query}")).json()
        return [job["id"] for job in answer["jobs"]], answer["pagination"]

    newest = made[::-1]
    assert await listed("") == (newest, {"offset": 0, "limit": None, "total": 3, "has_more": False})
    assert (await listed("sort_order=asc"))[0] == made
    assert await listed("limit=2") == (newest[:2], {"offset": 0, "limit": 2, "total": 3, "has_more": True})
    assert await listed("limit=2&offset=2") == (newest[2:], {"offset": 2, "limit": 2, "total": 3, "has_more": False})
    assert await listed("offset=9") == ([], {"offset": 9, "limit": None, "total": 3, "has_more": False})
    assert await listed("offset=-4&status=COMPLETED, failed") == (
        newest, {"offset": 0, "limit": None, "total": 3, "has_more": False}
    )  # fmt: skip
    assert (await listed("status=pending,in_progress"))[0] == []
    assert set((await listed("sort_by=execution_duration"))[0]) == set(made)


async def test_parts_of_the_history(comfy: Comfy) -> None:
    await comfy.post("/history", {"clear": True})
    made = [(await finished(comfy, graphs.saved(6020 + number)))[0] for number in range(3)]

    async def listed(query: str) -> list[str]:
        return list((await comfy.get(f"/history?{query}")).json())

    assert await listed("") == made
    assert await listed("max_items=2") == made[1:]
    assert await listed("max_items=2&offset=0") == made[:2]
    assert await listed("max_items=2&offset=2") == made[2:]
    assert await listed("max_items=1&offset=-1") == made[2:]
    assert await listed("offset=1") == made[1:]


@pytest.mark.parametrize(
    "path",
    ["/", "/prompt", "/queue", "/history", "/api/jobs", "/object_info/SaveImage", "/models", "/embeddings",
     "/system_stats", "/features", "/extensions", "/users", "/settings", "/i18n", "/view?filename=none.png",
     "/api/queue", "/internal/logs"],
)  # fmt: skip
async def test_what_can_be_got_can_be_asked_for_its_head(comfy: Comfy, path: str) -> None:
    got, head = await comfy.get(path), await comfy.call("HEAD", path)
    assert (head.status, head.body) == (got.status, b"")
    assert head.headers.get("Content-Type") == got.headers.get("Content-Type")
