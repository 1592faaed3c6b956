"""Order and content of WebSocket frames."""

import io
import json
import struct

from PIL import Image

from tests.engine.client import Client, Frame, connect, kinds
from tests.engine.graphs import default_graph, image_graph


def of(frames: list[Frame], kind: str) -> list[Frame]:
    return [frame for frame in frames if frame["type"] == kind]


async def test_frames_come_in_comfyuis_order(client: Client) -> None:
    entry, frames = await client.run(image_graph(0x0000A1))
    assert kinds(frames) == [
        "execution_start",
        "execution_cached",
        "progress_state",
        "executing",
        "progress_state",
        "progress_state",
        "executing",
        "executed",
        "progress_state",
        "execution_success",
        "executing",
    ]
    prompt_id = entry["prompt"][1]
    assert all(frame["data"]["prompt_id"] == prompt_id for frame in frames if frame["type"] != "status")
    assert [frame["data"]["node"] for frame in of(frames, "executing")] == ["1", "2", None]
    assert of(frames, "executing")[0]["data"] == {"node": "1", "display_node": "1", "prompt_id": prompt_id}
    assert of(frames, "execution_cached")[0]["data"]["nodes"] == []
    last = of(frames, "progress_state")[-1]["data"]["nodes"]
    assert last["2"] == {
        "value": 1.0,
        "max": 1.0,
        "state": "finished",
        "node_id": "2",
        "prompt_id": prompt_id,
        "display_node_id": "2",
        "parent_node_id": None,
        "real_node_id": "2",
    }
    executed = of(frames, "executed")[0]["data"]
    assert executed["output"] == entry["outputs"]["2"]
    assert executed["node"] == executed["display_node"] == "2"
    assert [message[0] for message in entry["status"]["messages"]] == [
        "execution_start",
        "execution_cached",
        "execution_success",
    ]
    assert entry["status"]["status_str"] == "success" and entry["status"]["completed"] is True
    assert entry["meta"] == {"2": {"node_id": "2", "display_node": "2", "parent_node": None, "real_node_id": "2"}}


async def test_queue_remaining_is_broadcast(comfy_url: str, client: Client) -> None:
    async with connect(comfy_url) as other:
        await client.run(image_graph(0x0000A2))
        seen = [(await other.until("status"))[-1]["data"]["status"]["exec_info"]["queue_remaining"] for _ in range(3)]
    assert seen[0] == 1 and seen[-1] == 0


async def test_previews_carry_metadata_when_negotiated(client: Client) -> None:
    entry, frames = await client.run(default_graph("previews", 7), extra_data={"preview_method": "auto"})
    previews = [frame["data"] for frame in of(frames, "binary")]
    assert len(previews) == 8 == len(of(frames, "progress"))
    kind, length = struct.unpack(">II", previews[0][:8])
    metadata = json.loads(previews[0][8 : 8 + length])
    assert kind == 4
    assert metadata == {
        "node_id": "70",
        "prompt_id": entry["prompt"][1],
        "display_node_id": "70",
        "parent_node_id": None,
        "real_node_id": "70",
        "image_type": "image/jpeg",
    }
    assert Image.open(io.BytesIO(previews[0][8 + length :])).format == "JPEG"
    order = kinds(frames)
    first = order.index("binary")
    assert order[first - 1 : first + 2] == ["progress_state", "binary", "progress"]


async def test_previews_are_plain_without_negotiation(comfy_url: str) -> None:
    async with connect(comfy_url, metadata=False) as client:
        _, frames = await client.run(default_graph("plain previews", 7))
    previews = [frame["data"] for frame in of(frames, "binary")]
    assert len(previews) == 8
    assert struct.unpack(">II", previews[0][:8]) == (1, 1)
    assert Image.open(io.BytesIO(previews[0][8:])).format == "JPEG"
    order = kinds(frames)
    assert order[order.index("binary") - 1] == "progress"


async def test_a_prompt_may_refuse_previews(client: Client) -> None:
    _, frames = await client.run(default_graph("no previews"), extra_data={"preview_method": "none"})
    assert of(frames, "binary") == []
    assert [frame["data"]["value"] for frame in of(frames, "progress")] == list(range(1, 9))


async def test_a_reconnecting_client_hears_what_runs(comfy_url: str, client: Client) -> None:
    prompt_id = await client.submit(default_graph("reconnect", steps=2000))
    await client.until("progress")
    async with connect(comfy_url, sid=client.sid, metadata=False) as again:
        frames = await again.until("executing")
        assert frames[-1]["data"] == {"node": "70"}
        await again.post("/interrupt", {"prompt_id": prompt_id})
        await again.until("executing", node=None)


async def test_without_client_id_progress_is_broadcast_and_the_rest_is_silent(client: Client) -> None:
    status, body = await client.post("/prompt", {"prompt": default_graph("anonymous", steps=2)})
    assert status == 200
    seen = [await client.frame()]
    while seen[-1]["type"] != "progress_state" or seen[-1]["data"]["nodes"].get("9", {}).get("state") != "finished":
        seen.append(await client.frame())
    assert set(kinds(seen)) == {"progress_state", "progress", "binary"}
    assert (await client.get("/queue"))["queue_pending"] == []
    assert body["node_errors"] == {}


async def test_only_the_first_message_negotiates(client: Client) -> None:
    await client.ws.send_str("not json")
    await client.ws.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": False}})
    _, frames = await client.run(default_graph("first message", steps=1))
    assert struct.unpack(">I", of(frames, "binary")[0]["data"][:4]) == (4,)
