"""Frames of a job on /ws: which, in which order, with which keys, and to whom."""

import io
import uuid

import pytest
from PIL import Image

from tests.contract import graphs
from tests.contract.graphs import Prompt, node
from tests.contract.servers import Server
from tests.contract.wire import FLAGS, PREVIEW, PREVIEW_WITH_METADATA, Comfy, Frame, preview_metadata

PROGRESS_KEYS = {
    "value", "max", "state", "node_id", "prompt_id", "display_node_id", "parent_node_id", "real_node_id",
}  # fmt: skip
CLASSES = ["EmptyImage", "LoadImage"]


@pytest.fixture
def client_id() -> str:
    return uuid.uuid4().hex


async def source(comfy: Comfy, class_type: str, color: int) -> dict[str, object]:
    """A first node whose picture no other test has used, so that nothing is cached."""
    if class_type == "EmptyImage":
        return graphs.empty_image(color)
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), (color % 256, color // 256 % 256, 40)).save(picture, "PNG")
    name = (await comfy.upload(f"source {color}.png", picture.getvalue())).json()["name"]
    return node("LoadImage", image=name)


def steps(frames: list[Frame]) -> list[str]:
    """Frames as short words: `executing 1`, `progress_state 1=running`."""
    words = []
    for frame in frames:
        if frame.kind == "progress_state":
            states = (f"{name}={state['state']}" for name, state in sorted(frame.data["nodes"].items()))
            words.append(f"progress_state {' '.join(states)}")
        elif frame.kind in {"executing", "executed"}:
            words.append(f"{frame.kind} {frame.data['node']}")
        else:
            words.append(frame.kind)
    return words


def of(frames: list[Frame], kind: str) -> list[Frame]:
    return [frame for frame in frames if frame.kind == kind]


async def run(comfy: Comfy, prompt: Prompt, client_id: str) -> tuple[str, list[Frame]]:
    async with comfy.socket(client_id, FLAGS) as socket:
        prompt_id = await comfy.submit(prompt, client_id)
        return prompt_id, await socket.job(prompt_id)


@pytest.mark.parametrize("class_type", CLASSES)
async def test_frames_of_a_job_in_order(comfy: Comfy, client_id: str, class_type: str) -> None:
    _, frames = await run(comfy, graphs.chain(await source(comfy, class_type, 7001)), client_id)
    assert steps(frames) == [
        "execution_start",
        "execution_cached",
        "progress_state 1=running",
        "executing 1",
        "progress_state 1=finished",
        "progress_state 1=finished 2=running",
        "executing 2",
        "progress_state 1=finished 2=finished",
        "progress_state 1=finished 2=finished 3=running",
        "executing 3",
        "progress_state 1=finished 2=finished 3=finished",
        "progress_state 1=finished 2=finished 3=finished 4=running",
        "executing 4",
        "executed 4",
        "progress_state 1=finished 2=finished 3=finished 4=finished",
        "execution_success",
        "executing None",
    ]


async def test_keys_of_the_frames(comfy: Comfy, client_id: str) -> None:
    prompt_id, frames = await run(comfy, graphs.chain(graphs.empty_image(7002)), client_id)
    keys = {frame.kind: set(frame.data) for frame in frames[:-1]}
    assert keys == {
        "execution_start": {"prompt_id", "timestamp"},
        "execution_cached": {"nodes", "prompt_id", "timestamp"},
        "progress_state": {"prompt_id", "nodes"},
        "executing": {"node", "display_node", "prompt_id"},
        "executed": {"node", "display_node", "output", "prompt_id"},
        "execution_success": {"prompt_id", "timestamp"},
    }
    assert frames[-1].data == {"node": None, "prompt_id": prompt_id}
    assert {frame.data["prompt_id"] for frame in frames} == {prompt_id}
    assert isinstance(frames[0].data["timestamp"], int)
    state = of(frames, "progress_state")[0].data["nodes"]["1"]
    assert set(state) == PROGRESS_KEYS
    ids = {"node_id": "1", "display_node_id": "1", "parent_node_id": None, "real_node_id": "1", "prompt_id": prompt_id}
    assert state == {"value": 0, "max": 1, "state": "running", **ids}


async def test_an_equal_prompt_comes_from_the_cache(comfy: Comfy, client_id: str) -> None:
    prompt = graphs.chain(graphs.empty_image(7003), "cached")
    _, first = await run(comfy, prompt, client_id)
    again_id, again = await run(comfy, prompt, client_id)
    assert steps(again) == [
        "execution_start",
        "execution_cached",
        "executed 4",
        "progress_state 4=finished",
        "execution_success",
        "executing None",
    ]
    assert set(of(again, "execution_cached")[0].data["nodes"]) == {"1", "2", "3", "4"}
    assert of(again, "executed")[0].data["output"] == of(first, "executed")[0].data["output"]
    assert list((await comfy.history(again_id))["outputs"]) == ["4"]


async def test_a_change_reruns_only_what_depends_on_it(comfy: Comfy, client_id: str) -> None:
    prompt = graphs.chain(graphs.empty_image(7004), "partly")
    await run(comfy, prompt, client_id)
    prompt["3"]["inputs"]["sigma"] = 2.0
    _, frames = await run(comfy, prompt, client_id)
    assert set(of(frames, "execution_cached")[0].data["nodes"]) == {"1", "2"}
    assert [frame.data["node"] for frame in of(frames, "executing")] == ["3", "4", None]


async def test_two_outputs(comfy: Comfy, client_id: str) -> None:
    prompt_id, frames = await run(comfy, graphs.two_outputs(graphs.empty_image(7005)), client_id)
    outputs = {frame.data["node"]: frame.data["output"]["images"][0] for frame in of(frames, "executed")}
    assert outputs["4"] == {"filename": outputs["4"]["filename"], "subfolder": "", "type": "output"}
    assert outputs["5"]["type"] == "temp"
    assert outputs["5"]["filename"].startswith("ComfyUI_temp_")
    for name in ("4", "5"):
        order = [step for step in steps(frames) if step in {f"executing {name}", f"executed {name}"}]
        assert order == [f"executing {name}", f"executed {name}"]
    assert (await comfy.history(prompt_id))["outputs"] == {key: {"images": [ref]} for key, ref in outputs.items()}


async def test_history_is_written_before_the_last_frame(comfy: Comfy, client_id: str) -> None:
    prompt_id, _ = await run(comfy, graphs.saved(7006), client_id)
    assert (await comfy.history(prompt_id))["status"]["completed"] is True


async def test_a_socket_begins_with_its_status(comfy: Comfy, client_id: str) -> None:
    async with comfy.socket(client_id, FLAGS) as socket:
        first, *_, last = socket.frames
        assert first.data == {"status": {"exec_info": {"queue_remaining": 0}}, "sid": client_id}
        assert last.data == (await comfy.get("/features")).json()
        assert last.data["supports_preview_metadata"] is True
        assert isinstance(last.data["max_upload_size"], int)


async def test_a_socket_without_an_id_is_given_one(comfy: Comfy) -> None:
    async with comfy.socket("") as socket:
        assert socket.frames[0].data["sid"]


async def test_only_the_submitter_sees_the_job(comfy: Comfy, client_id: str) -> None:
    async with comfy.socket(f"{client_id}-other", FLAGS) as other:
        await run(comfy, graphs.saved(7007), client_id)
        await other.until(lambda frame: frame.data.get("status") == {"exec_info": {"queue_remaining": 0}})
        assert {frame.kind for frame in other.frames} == {"status", "feature_flags"}
        remaining = [f.data["status"]["exec_info"]["queue_remaining"] for f in other.frames if f.kind == "status"]
        assert 1 in remaining


async def test_previews_with_metadata_go_to_a_client_that_knows_them(
    comfy: Comfy, server: Server, client_id: str
) -> None:
    prompt_id, frames = await run(comfy, server.previewing(7008), client_id)
    previews = of(frames, f"binary {PREVIEW_WITH_METADATA}")
    assert len(previews) == 3
    assert not of(frames, f"binary {PREVIEW}")
    metadata, picture = preview_metadata(previews[0])
    assert metadata == {
        "node_id": "3",
        "prompt_id": prompt_id,
        "display_node_id": "3",
        "parent_node_id": None,
        "real_node_id": "3",
        "image_type": "image/jpeg",
    }
    assert Image.open(io.BytesIO(picture)).format == "JPEG"


async def test_each_step_is_progress_state_preview_progress(comfy: Comfy, server: Server, client_id: str) -> None:
    prompt_id, frames = await run(comfy, server.previewing(7009), client_id)
    first = next(index for index, frame in enumerate(frames) if frame.kind == "progress")
    assert [frame.kind for frame in frames[first - 2 : first]] == ["progress_state", f"binary {PREVIEW_WITH_METADATA}"]
    assert frames[first].data == {"value": 1, "max": 3, "prompt_id": prompt_id, "node": "3"}
    assert [frame.data["value"] for frame in of(frames, "progress")] == [1, 2, 3]


async def test_plain_previews_go_to_a_client_without_the_flag(comfy: Comfy, server: Server, client_id: str) -> None:
    async with comfy.socket(client_id) as socket:
        prompt_id = await comfy.submit(server.previewing(7010), client_id)
        frames = await socket.job(prompt_id)
    previews = of(frames, f"binary {PREVIEW}")
    assert len(previews) == 3
    assert not of(frames, f"binary {PREVIEW_WITH_METADATA}")
    assert previews[0].payload[:4] == b"\0\0\0\1"  # 1 is JPEG
    assert Image.open(io.BytesIO(previews[0].payload[4:])).format == "JPEG"


async def test_a_client_that_returns_is_told_what_runs(comfy: Comfy, client_id: str) -> None:
    prompt = graphs.long_chain(7011)
    async with comfy.socket(client_id) as socket:
        prompt_id = await comfy.submit(prompt, client_id)
        await socket.until(lambda frame: frame.kind == "executing")
    async with comfy.socket(client_id) as socket:
        told = await socket.until(lambda frame: frame.kind == "executing")
        assert told[-1].data["node"] in prompt
        await comfy.post("/interrupt", {"prompt_id": prompt_id})
        await socket.job(prompt_id)
