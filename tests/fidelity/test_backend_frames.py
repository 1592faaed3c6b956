"""What the nodes of a real backend may send, end to end through a whole server: to the submitter, and unchanged."""

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.backend_pool.strange_backend import Strange, strange_backend
from tests.cluster import start_cluster
from tests.contract import graphs
from tests.contract.wire import FLAGS, Frame, preview_metadata
from tests.system.people import Someone

pytestmark = pytest.mark.asyncio(loop_scope="module")
NODE = "57:8"
DISPLAYED = "57"
IDS = {"node_id": NODE, "display_node_id": DISPLAYED, "parent_node_id": None, "real_node_id": NODE}
STATE = {"value": 1, "max": 2, "state": "running", "prompt_id": "ID", **IDS}
CUSTOM = {"type": "my-pack.event", "data": {"anything": [1, {"deep": True}], "node": NODE}}
TEXT = struct.pack(">II", 3, len(NODE)) + NODE.encode() + "Price: 4 €".encode()
LARGE = bytes(5 << 20)
"""Above the 4 MiB that aiohttp's client takes by default."""
UNKNOWN = struct.pack(">I", 9) + b"no client knows this"
UI = '{"2": {"text": ["shown"], "score": [NaN]}}'


def preview() -> bytes:
    metadata = b'{"node_id": "57:8", "display_node_id": "57", "image_type": "image/png"}'
    return struct.pack(">II", 4, len(metadata)) + metadata + LARGE


BETWEEN: list[Any] = [
    {"type": "execution_cached", "data": {"nodes": [], "prompt_id": "ID"}},
    {"type": "progress_state", "data": {"prompt_id": "ID", "nodes": {NODE: STATE}}},
    {"type": "executing", "data": {"node": NODE, "display_node": DISPLAYED, "prompt_id": "ID"}},
    CUSTOM,
    {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 71}}}},
    {"type": "progress", "data": {"value": 1, "max": 2, "node": NODE, "prompt_id": "somebody else's"}},
    TEXT,
    UNKNOWN,
    preview(),
    {"type": "execution_error", "data": {"prompt_id": "ID", "node_id": NODE, "exception_message": "blocked"}},
]
"""With what must not pass: the backend's own status, another prompt's progress, a binary type nobody knows."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def people(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Strange, Someone, Someone]]:
    """A server whose one backend says all that, and two people, for all tests here."""
    async with strange_backend(ui=UI, between=BETWEEN) as strange:
        arguments = ("--engines", "0", "--backend", strange.url)
        cluster = await asyncio.to_thread(start_cluster, tmp_path_factory.mktemp("server"), *arguments)
        try:
            persons = [await asyncio.to_thread(cluster.user, name) for name in ("ann", "ben")]
            ann, ben = (Someone(cluster, person) for person in persons)
            yield strange, ann, ben
            await ann.comfy.close()
            await ben.comfy.close()
        finally:
            await asyncio.to_thread(cluster.stop)
            await asyncio.to_thread(cluster.clean)


def kinds(frames: list[Frame]) -> list[str]:
    return [frame.kind for frame in frames]


async def test_frames_of_nodes_reach_their_user_unchanged(people: tuple[Strange, Someone, Someone]) -> None:
    strange, ann, ben = people
    prompt = graphs.saved(1)
    async with (
        ann.comfy.socket("tab", FLAGS) as knows,
        ann.comfy.socket("tab") as plain,
        ben.comfy.socket("tab", FLAGS) as his,
    ):
        prompt_id = await ann.comfy.submit(prompt, "tab", extra_data={"api_key_comfy_org": "k"})
        frames, plainly = await knows.job(prompt_id), await plain.job(prompt_id)
        assert kinds(frames) == [
            "execution_start", "execution_cached", "progress_state", "executing", "my-pack.event", "binary 3",
            "binary 4", "execution_error", "executed", "execution_success", "executing",
        ]  # fmt: skip
        assert kinds(plainly) == [kind.replace("binary 4", "binary 1") for kind in kinds(frames)]
        state = frames[2].data["nodes"][NODE]
        assert state == {**STATE, "prompt_id": prompt_id}
        assert frames[3].data == {"node": NODE, "display_node": DISPLAYED, "prompt_id": prompt_id}
        assert frames[4].data == CUSTOM["data"]
        assert frames[5].payload == TEXT[4:]
        metadata, picture = preview_metadata(frames[6])
        assert picture == LARGE
        assert (metadata["node_id"], metadata["display_node_id"], metadata["prompt_id"]) == (NODE, "57", prompt_id)
        (old,) = (frame for frame in plainly if frame.kind == "binary 1")
        assert old.payload == struct.pack(">I", 2) + LARGE  # 2 is PNG
        assert frames[8].data["output"] == {"text": ["shown"], "score": [None]}
        broadcast = (await ann.comfy.post("/prompt", {"prompt": prompt})).json()["prompt_id"]
        await knows.job(broadcast)  # without a client_id: all tabs of its user
        await plain.job(broadcast)
        own = await ben.comfy.submit(prompt, "tab")
        heard = await his.job(own)
        assert {frame.data["prompt_id"] for frame in heard if "prompt_id" in frame.data} == {own}
    assert (await ann.comfy.history(prompt_id))["status"]["status_str"] == "success"
    first, second, third = strange.prompts[-3:]
    assert first["extra_data"]["api_key_comfy_org"] == "k" and "api_key_comfy_org" not in second["extra_data"]
    assert len({sent["client_id"] for sent in (first, second, third)} - {"tab", None, ""}) == 3


async def test_what_a_user_may_not_do_to_everybody_stays_here(people: tuple[Strange, Someone, Someone]) -> None:
    strange, ann, _ = people
    await ann.runs(graphs.saved(2))
    for path, body in (("/free", {"unload_models": True, "free_memory": True}), ("/interrupt", None)):
        assert (await ann.comfy.post(path, body)).status == 200
    for path in ("/queue", "/history"):
        assert (await ann.comfy.post(path, {"clear": True})).status == 200
    await ann.runs(graphs.saved(3))  # whatever was asked for has had its effect by now
    assert not [asked for asked in strange.asked if asked in ("POST /free", "POST /interrupt", "POST /queue")]
