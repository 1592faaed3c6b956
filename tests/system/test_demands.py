"""What real clients demand of a server that wants a login: behaviours B1 to B13 of the research, one by one.

B10 and E1 are in `test_demands_on_logins.py`."""

import asyncio
import io
import json
import uuid
from typing import Any

import aiohttp
import pytest

from tests.contract import graphs
from tests.contract.wire import Comfy
from tests.system.conftest import Newcomer
from tests.system.people import Someone, endless, painting, remaining, until_idle


@pytest.mark.parametrize(
    "content_type",
    [None, "application/octet-stream", "application/x-www-form-urlencoded", "text/plain", "application/json; x=y"],
)
async def test_b1_a_prompt_is_json_whatever_its_content_type(ann: Someone, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    body = json.dumps({"prompt": graphs.saved(1)}).encode()
    skip = [] if content_type else ["Content-Type"]
    answer = await ann.comfy.call("POST", "/prompt", data=body, headers=headers, skip_auto_headers=skip)
    assert (answer.status, answer.json()["node_errors"]) == (200, {})


async def test_b2_the_first_message_counts_ones_own_jobs_and_tells_the_sid(ann: Someone, ben: Someone) -> None:
    await ben.comfy.submit(endless(1), "ben")
    await ann.comfy.submit(endless(2), "ann")
    await ann.comfy.submit(graphs.saved(3), "ann")
    async with ann.comfy.socket("a-sid") as socket:
        assert socket.frames[0].data == {"status": {"exec_info": {"queue_remaining": 2}}, "sid": "a-sid"}
    async with ben.comfy.socket("b-sid") as socket:
        assert socket.frames[0].data["status"] == {"exec_info": {"queue_remaining": 1}}


async def test_b2_a_socket_that_comes_after_the_prompt_learns_that_all_is_done(ann: Someone) -> None:
    """comfy-api-simplified: post, connect, read until queue_remaining is 0, then read the history."""
    for color in range(12):
        prompt_id = await ann.comfy.submit(graphs.saved(color), "simple")
        async with ann.comfy.socket("simple") as socket:
            while not any(remaining(frame) == 0 for frame in socket.frames):
                await socket.read()
            assert prompt_id in (await ann.comfy.get(f"/history/{prompt_id}")).json()


async def test_b3_b4_no_prompt_is_ever_in_neither_queue_nor_history(ann: Someone) -> None:
    """Read as clients do, queue first; sampled without a pause while jobs start and end."""
    submitted = [await ann.comfy.submit(graphs.saved(color), "sampled") for color in range(12)]
    left = set(submitted)
    samples = 0
    while left:
        queue = (await ann.comfy.get("/queue")).json()
        assert len(queue["queue_running"]) <= 1
        active = {item[1] for item in [*queue["queue_running"], *queue["queue_pending"]]}
        for prompt_id in left - active:
            assert prompt_id in (await ann.comfy.get(f"/history/{prompt_id}")).json()
        left &= active
        samples += 1
    assert samples > len(submitted) / 2


async def test_b3_on_every_status_a_job_is_found_somewhere(ann: Someone) -> None:
    async with ann.comfy.socket("watching") as socket:
        prompt_id = await ann.comfy.submit(painting(31), "watching")
        while True:
            frame = await socket.read()
            if frame.kind == "status" and not await _queued(ann.comfy, prompt_id):
                assert prompt_id in (await ann.comfy.get(f"/history/{prompt_id}")).json()
            if frame.ends_job:
                return


async def test_b4_one_users_jobs_run_one_after_the_other_in_order(ann: Someone) -> None:
    async with ann.comfy.socket("row") as socket:
        submitted = [await ann.comfy.submit(painting(40 + index), "row") for index in range(4)]
        frames = await socket.until(lambda frame: frame.ends_job and frame.data["prompt_id"] == submitted[-1])
    story = [
        (frame.kind, frame.data["prompt_id"]) for frame in frames if frame.kind == "execution_start" or frame.ends_job
    ]
    assert story == [(kind, one) for one in submitted for kind in ("execution_start", "executing")]


async def test_b5_the_prompt_is_shown_exactly_as_it_was_sent(ann: Someone) -> None:
    """File names and prefixes are rewritten on the way to a backend; nobody may see that."""
    name = (await ann.comfy.upload("mine.png", await _png(ann))).json()["name"]
    prompt = graphs.two_outputs(graphs.node("LoadImage", image=name))
    prompt["4"]["_meta"] = {"title": "Größer 图", "nested": [1, 2.5, None, True]}
    prompt["4"]["inputs"]["filename_prefix"] = "deep/%date%/er"
    prompt_id = await ann.runs(prompt, extra_data={"extra_pnginfo": {"workflow": {"id": "w", "nodes": []}}})
    entry = await ann.comfy.history(prompt_id)
    assert entry["prompt"][2] == prompt
    assert list(entry["prompt"][2]) == list(prompt)
    assert list((await ann.comfy.get("/history")).json()) == [*(await ann.ids())[2]]
    told = json.dumps([entry, await ann.job(prompt_id)])
    assert "cluster/" not in told
    assert (await ann.comfy.get(f"/history/{uuid.uuid4()}")).json() == {}


async def test_b5_a_waiting_prompt_too(ann: Someone) -> None:
    prompt = endless(51)
    prompt_id = await ann.comfy.submit(prompt, "shown")
    queue = (await ann.comfy.get("/queue")).json()
    entry: list[Any] = (queue["queue_running"] + queue["queue_pending"])[0]
    number, shown_id, shown, extra, outputs = entry
    assert (shown_id, shown, outputs) == (prompt_id, prompt, ["9"])
    assert isinstance(number, int)
    assert extra["client_id"] == "shown"


@pytest.mark.parametrize("prompt_id", [str(uuid.UUID(int=6)), "not a uuid.1", "ünï"])
async def test_b6_the_callers_prompt_id_is_kept(ann: Someone, prompt_id: str) -> None:
    prompt = graphs.saved(60)
    prompt["SaveImage.0"] = prompt.pop("2")
    answer = await ann.comfy.post("/prompt", {"prompt": prompt, "prompt_id": prompt_id, "client_id": "own"})
    assert answer.json()["prompt_id"] == prompt_id
    async with ann.comfy.socket("own") as socket:
        await until_idle(socket)
    assert list((await ann.comfy.history(prompt_id))["outputs"]) == ["SaveImage.0"]


async def test_b6_an_id_in_use_is_refused_and_a_finished_one_gives_way(ann: Someone) -> None:
    running = await ann.comfy.submit(endless(61), "twice", prompt_id="the-id")
    again = await ann.comfy.post("/prompt", {"prompt": graphs.saved(62), "prompt_id": running})
    assert (again.status, again.json()["error"]["type"]) == (409, "conflict")
    await ann.comfy.post(f"/api/jobs/{running}/cancel")
    async with ann.comfy.socket("twice") as socket:
        await until_idle(socket)
        assert await ann.comfy.submit(graphs.saved(63), "twice", prompt_id="the-id") == "the-id"
        await socket.job("the-id")
    assert (await ann.job("the-id"))["status"] == "completed"


async def test_b6_two_people_may_use_one_id(ann: Someone, ben: Someone) -> None:
    first = await ann.runs(graphs.saved(64), prompt_id="shared-id")
    second = await ben.runs(graphs.saved(65), prompt_id="shared-id")
    assert first == second
    assert await ann.picture(first) != await ben.picture(second)


async def test_b7_the_end_marker_comes_last_and_after_the_history(ann: Someone) -> None:
    async with ann.comfy.socket("marked") as socket:
        for prompt in (graphs.saved(70), graphs.saved(70)):  # the second comes from the cache
            prompt_id = await ann.comfy.submit(prompt, "marked")
            frames = await socket.until(lambda frame: frame.ends_job)
            assert frames[-1].data == {"node": None, "prompt_id": prompt_id}
            assert prompt_id in (await ann.comfy.get(f"/history/{prompt_id}")).json()
            kinds = [frame.kind for frame in frames]
            assert kinds.index("executed") < kinds.index("execution_success") < len(kinds) - 1


async def test_b8_the_answer_is_on_the_wire_before_the_first_event(ann: Someone) -> None:
    """A client that handles one thing after the other must know its id before it hears of it."""
    arrived: list[str] = []
    async with ann.comfy.socket("ordered") as socket:
        for color in range(10):

            async def post(color: int = color) -> None:
                prompt_id = await ann.comfy.submit(graphs.saved(8000 + color), "ordered")
                arrived.append(f"answer {prompt_id}")

            posting = asyncio.get_running_loop().create_task(post())
            while not (frame := await socket.read()).ends_job:
                if frame.kind == "execution_start":
                    arrived.append(f"start {frame.data['prompt_id']}")
            await posting
    pairs = [tuple(word.split()[0] for word in arrived[at : at + 2]) for at in range(0, len(arrived), 2)]
    assert pairs == [("answer", "start")] * 10


async def test_b9_only_binary_types_that_clients_know_and_only_for_ones_own(ann: Someone) -> None:
    async with ann.comfy.socket("plain") as plain, ann.comfy.socket("other") as other:
        await plain.job(await ann.comfy.submit(painting(90, steps=4), "plain"))
        await until_idle(other)
    assert {frame.kind for frame in plain.frames if frame.kind.startswith("binary")} == {"binary 1"}
    assert {frame.kind for frame in other.frames} == {"status"}


@pytest.mark.parametrize(
    "path", ["/manager/version", "/api/manager/version", "/customnode/getlist", "/jobs", "/x.html"]
)
async def test_b11_unknown_routes_are_404(ann: Someone, path: str) -> None:
    answer = await ann.comfy.get(path, headers={"Accept": "*/*"}, allow_redirects=False)
    assert answer.status == 404


async def test_b11_an_unknown_class_is_empty_and_logs_can_be_subscribed(ann: Someone) -> None:
    assert (await ann.comfy.get("/object_info/NoSuchNode")).json() == {}
    subscribe = await ann.comfy.call("PATCH", "/internal/logs/subscribe", json={"clientId": "x", "enabled": True})
    assert subscribe.status == 200


async def test_b12_an_origin_as_websocket_client_sends_it(ann: Someone) -> None:
    url = f"{ann.cluster.url}/ws?clientId=origin"
    async with aiohttp.ClientSession(headers={**ann.bearer, "Origin": ann.cluster.url}) as http:
        async with http.ws_connect(url) as ws:
            assert (await ws.receive_json())["data"]["sid"] == "origin"
        async with http.post(f"{ann.cluster.url}/upload/image", data={"image": io.BytesIO(b"x")}) as posted:
            assert posted.status == 200  # the session is told no origin that it could refuse


@pytest.mark.parametrize(
    "path", ["/queue", "/history", "/prompt", "/object_info", "/models", "/embeddings", "/features", "/settings",
             "/users", "/extensions", "/experiment/models"],
)  # fmt: skip
async def test_b13_routes_have_their_twin_below_api(ann: Someone, path: str) -> None:
    bare, twin = await ann.comfy.get(path), await ann.comfy.get(f"/api{path}")
    assert (bare.status, bare.body) == (200, twin.body)


async def test_b13_view_takes_what_clients_add_and_leave_out(ann: Someone) -> None:
    prompt_id = await ann.runs(graphs.saved(130))
    (image,) = (await ann.comfy.history(prompt_id))["outputs"]["2"]["images"]
    queries = [f"filename={image['filename']}", f"filename={image['filename']}&type=output&rand=0.1&clientId=x"]
    answers = [await ann.comfy.get(f"{prefix}/view?{query}") for prefix in ("", "/api") for query in queries]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert "private" in answers[0].headers["Cache-Control"] or "no-store" in answers[0].headers["Cache-Control"]


async def test_a_user_who_never_opened_a_canvas_can_use_the_api(newcomer: Newcomer) -> None:
    someone = await newcomer("fresh")
    assert len(await someone.picture(await someone.runs(painting(150)))) > 1000


async def _queued(comfy: Comfy, prompt_id: str) -> bool:
    queue = (await comfy.get("/queue")).json()
    return any(item[1] == prompt_id for item in [*queue["queue_running"], *queue["queue_pending"]])


async def _png(someone: Someone) -> bytes:
    return await someone.picture(await someone.runs(graphs.saved(50)))
