"""Each fault does its harm, where and as often as ordered, and the engine works again afterwards."""

import asyncio
import signal
from typing import Any

import aiohttp
import pytest

from backend_pool.engine.faults import CRASH_STATUS, Faults
from proxy.base.errors import BadInput
from tests.engine.client import Client, connect, kinds
from tests.engine.graphs import default_graph, image_graph


async def last_message(client: Client, prompt: Any) -> tuple[str, dict[str, Any]]:
    entry, _ = await client.run(prompt)
    event, data = entry["status"]["messages"][-1]
    return event, data


async def test_out_of_memory_looks_like_torchs(client: Client) -> None:
    await client.arm(fault="oom", node="KSampler", step=2)
    event, data = await last_message(client, default_graph("oom"))
    assert event == "execution_error"
    assert data["exception_type"] == "torch.OutOfMemoryError" and "CUDA out of memory" in data["exception_message"]
    assert (data["node_id"], data["node_type"]) == ("70", "KSampler")
    assert set(data) >= {"executed", "traceback", "current_inputs", "current_outputs", "timestamp", "prompt_id"}
    assert "68" in data["executed"] and data["current_inputs"]["seed"] == [42]
    assert (await last_message(client, default_graph("oom")))[0] == "execution_success"


async def test_errors_by_node_id_and_count(client: Client) -> None:
    await client.arm(fault="error", node="2", count=2, message="no luck")
    for colour in (1, 2):
        event, data = await last_message(client, image_graph(colour))
        assert event == "execution_error" and data["exception_message"] == "no luck\n" and data["executed"] == ["1"]
    assert (await last_message(client, image_graph(3)))[0] == "execution_success"


async def test_refusals(client: Client) -> None:
    await client.arm(fault="refuse", status=429, message="later")
    status, body = await client.post("/prompt", {"prompt": image_graph()})
    assert (status, body["error"]["message"]) == (429, "later")
    assert (await client.post("/prompt", {"prompt": image_graph()}))[0] == 200


async def test_a_lost_answer_leaves_the_job(client: Client) -> None:
    await client.arm(fault="lose_answer")
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.submit(image_graph(0xFA), prompt_id="lost")
    await client.until("executing", node=None, prompt_id="lost")
    assert "lost" in await client.get("/history/lost")


async def test_a_hung_job_ignores_interrupts_until_released(client: Client) -> None:
    await client.arm(fault="hang_job", node="EmptyImage")
    prompt_id = await client.submit(image_graph(0xAB))
    await client.until("executing", node="1")
    await client.post("/interrupt", {})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await client.until("executing", node=None)
    async with client.http.delete(f"{client.url}/engine/faults") as response:
        assert response.status == 200
    await client.until("executing", node=None, prompt_id=prompt_id)


async def test_a_hung_job_may_heed_interrupts(client: Client) -> None:
    await client.arm(fault="hang_job", heeds_interrupt=True)
    await client.submit(image_graph(0xAC))
    await client.until("executing", node="1")
    await client.post("/interrupt", {})
    assert "execution_interrupted" in kinds(await client.until("executing", node=None))


async def test_sockets_drop_in_the_middle_of_a_job(comfy_url: str, client: Client) -> None:
    await client.arm(fault="drop_ws", node="KSampler", step=3)
    prompt_id = await client.submit(default_graph("drop", steps=200))
    with pytest.raises((AssertionError, aiohttp.ClientError)):
        await client.until("executing", node=None)
    async with connect(comfy_url, sid=client.sid) as again:
        await again.until("executing", node=None, prompt_id=prompt_id)
        assert (await again.get(f"/history/{prompt_id}"))[prompt_id]["status"]["status_str"] == "success"


async def test_truncated_and_slow_downloads(client: Client) -> None:
    entry, _ = await client.run(image_graph(0xAD))
    shown = entry["outputs"]["2"]["images"][0]
    await client.arm(fault="truncate_view")
    with pytest.raises(aiohttp.ClientPayloadError):
        async with client.http.get(f"{client.url}/view", params=shown) as response:
            await response.read()
    async with client.http.get(f"{client.url}/view", params=shown) as response:
        whole = await response.read()
    await client.arm(fault="slow_view", bytes_per_s=len(whole) * 20)
    async with client.http.get(f"{client.url}/view", params=shown) as response:
        assert await response.read() == whole


@pytest.mark.parametrize(
    "point", ["before_submit_answer", "after_submit", "mid_step", "before_executed", "before_history"]
)
async def test_crashes(start: Any, point: str) -> None:
    engine = start()
    async with connect(engine.url) as client:
        await client.arm(fault="crash", at=point)
        if point == "before_submit_answer":
            with pytest.raises(aiohttp.ClientError):
                await client.submit(default_graph())
        else:
            await client.submit(default_graph())
            with pytest.raises((AssertionError, aiohttp.ClientError)):
                await client.until("executing", node=None)
    assert await asyncio.to_thread(engine.wait) == CRASH_STATUS


async def test_a_hung_server_answers_nothing_but_dies_of_sigterm(start: Any) -> None:
    engine = start()
    async with connect(engine.url) as client:
        await client.arm(fault="hang_server", node="KSampler", step=1)
        await client.submit(default_graph())
        await client.until("executing", node="70")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_until_silent(client), 1)
        engine.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(engine.wait) == 0


async def _until_silent(client: Client) -> None:
    while True:
        await client.get("/queue")


async def test_faults_that_strike_now(start: Any) -> None:
    engine = start()
    async with connect(engine.url) as client:
        await client.arm(fault="drop_ws", at="now")
        with pytest.raises(AssertionError):
            await client.until("executing", node=None)
        await client.arm(fault="hang_server", at="now", seconds=0.1)
        await client.get("/queue")
        await client.arm(fault="crash", at="now")
    assert await asyncio.to_thread(engine.wait) == CRASH_STATUS


async def test_a_server_may_hang_for_a_while(client: Client) -> None:
    await client.arm(fault="hang_server", seconds=0.2)
    entry, _ = await client.run(image_graph(0xAE))
    assert entry["status"]["completed"] is True


async def test_faults_need_the_option(start: Any) -> None:
    engine = start("--checkpoints", "only.safetensors")
    async with connect(engine.url) as client:
        info = await client.get("/object_info/CheckpointLoaderSimple")
        assert info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0] == ["only.safetensors"]
        assert (await client.get("/engine/faults"))["faults"] == []


@pytest.mark.parametrize(
    "order",
    [
        [],
        {},
        {"fault": "nope"},
        {"fault": "oom", "count": 0},
        {"fault": "oom", "count": "x"},
        {"fault": "oom", "step": True},
        {"fault": "crash", "at": "nowhere"},
        {"fault": "refuse", "status": 200},
        {"fault": "oom", "at": "now"},
        {"fault": "oom", "node": 3},
        {"fault": "oom", "id": 3},
        {"fault": "oom", "surprise": 1},
    ],
)
def test_orders_that_make_no_sense(order: object) -> None:
    with pytest.raises(BadInput):
        Faults().arm(order)


def test_a_fault_strikes_where_it_was_ordered() -> None:
    faults = Faults()
    faults.arm({"fault": "oom", "node": "KSampler", "step": 2, "count": 2})
    assert faults.take_at_node("7", "KSampler", 1) is None
    assert faults.take_at_node("7", "VAEDecode", 2) is None
    assert faults.take("refuse") is None
    assert faults.take_at_node("7", "KSampler", 2) is not None
    assert faults.take_at_node("7", "KSampler", 2) is not None
    assert faults.take_at_node("7", "KSampler", 2) is None
    assert faults.struck == 2 and faults.armed() == []
