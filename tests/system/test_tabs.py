"""A user's sockets: several tabs, one id twice, coming back to a running job, slow readers, losing one's access."""

import asyncio
import contextlib
import socket as sockets
from urllib.parse import urlsplit

import aiohttp
import pytest
import websockets

from proxy.tabs.user_events import TABS_LIMIT
from proxy.tabs.user_socket import MESSAGE_BYTES
from tests.contract import graphs
from tests.contract.wire import FLAGS, Socket
from tests.system.inside import fault, memory_kb
from tests.system.people import Someone, endless, painting, remaining, until_idle


async def started(socket: Socket) -> None:
    """Read on until the sampler has begun."""
    await socket.until(lambda frame: frame.kind == "progress")


async def test_every_tab_hears_of_the_queue_and_only_the_submitter_of_the_job(ann: Someone) -> None:
    async with ann.comfy.socket("one") as one, ann.comfy.socket("two") as two:
        prompt_id = await ann.comfy.submit(painting(1), "one")
        await one.job(prompt_id)
        await until_idle(one)
        await two.until(lambda frame: remaining(frame) == 0)
        assert {frame.kind for frame in two.frames} == {"status"}


async def test_a_socket_that_asks_is_pushed_what_waiting_jobs_may_expect(ann: Someone) -> None:
    async with ann.comfy.socket("asks") as asks, ann.comfy.socket("other") as other:
        await asks.ws.send_json({"type": "cluster_queue"})
        async with fault(ann.cluster, fault="hang_job", node="KSampler", step=2, heeds_interrupt=True):
            ids = [await ann.comfy.submit(painting(seed, steps=4), "other") for seed in (11, 12)]
            told = await asks.until(
                lambda frame: (
                    frame.kind == "cluster_queue"
                    and any(job["reason"] == "your other job runs first (1 at a time)" for job in frame.data["jobs"])
                )
            )
            assert told[-1].data["jobs"][-1]["position"] in {1, 2}, "before the first one has begun, or after"
        assert (await other.job(ids[1]))[-2].kind == "execution_success"
        await asks.until(lambda frame: frame.kind == "cluster_queue" and not frame.data["jobs"])
        await until_idle(other)
        assert "cluster_queue" not in {frame.kind for frame in other.frames}


async def test_one_id_in_two_tabs_and_one_of_them_closed(ann: Someone) -> None:
    """Chrome's "Duplicate tab" copies the id: neither may take the other's events."""
    async with ann.comfy.socket("twin", FLAGS) as left:
        async with ann.comfy.socket("twin", FLAGS) as right:
            prompt_id = await ann.comfy.submit(painting(2, steps=3), "twin")
            stories = [await left.job(prompt_id), await right.job(prompt_id)]
            assert [frame.kind for frame in stories[0]] == [frame.kind for frame in stories[1]]
        prompt_id = await ann.comfy.submit(painting(3), "twin")
        assert (await left.job(prompt_id))[-2].kind == "execution_success"


async def test_a_tab_that_comes_back_sees_what_runs(ann: Someone) -> None:
    prompt = {**endless(4), "7": graphs.node("PreviewImage", images=["8", 0]), "8": graphs.empty_image(4)}
    async with ann.comfy.socket("back", FLAGS) as socket:
        prompt_id = await ann.comfy.submit(prompt, "back")
        await started(socket)
    shown = [frame for frame in socket.frames if frame.kind == "executed"]
    async with ann.comfy.socket("back") as socket:
        told = await socket.until(lambda frame: frame.kind == "executing")
        assert [frame.kind for frame in told] == [
            "execution_start", *["executed"] * len(shown), "progress_state", "executing"
        ]  # fmt: skip
        assert {frame.data["prompt_id"] for frame in told} == {prompt_id}
        assert told[-1].data["node"] == "3"
        assert told[-2].data["nodes"]["3"]["value"] > 0
        live = await socket.until(lambda frame: frame.kind == "progress" and frame.data["value"] > 10)
        assert live[-1].data["prompt_id"] == prompt_id
        answer = await ann.comfy.post("/interrupt", {"prompt_id": prompt_id})
        assert answer.status == 200
        ended = await socket.job(prompt_id)
        assert ended[-2].kind == "execution_interrupted"
    async with ann.comfy.socket("back") as socket:
        assert socket.frames[0].data["status"] == {"exec_info": {"queue_remaining": 0}}
        await socket.job(await ann.comfy.submit(graphs.saved(5), "back"))
        assert {frame.data.get("prompt_id") for frame in socket.frames} & {prompt_id} == set()


async def test_the_last_preview_comes_again_once_the_canvas_is_there(ann: Someone) -> None:
    """A sampler that hangs after its first step sends nothing more: what is shown must be the replay."""
    async with fault(ann.cluster, fault="hang_job", node="KSampler", step=2, heeds_interrupt=True):
        async with ann.comfy.socket("preview", FLAGS) as socket:
            prompt_id = await ann.comfy.submit(painting(6, steps=5), "preview")
            await socket.until(lambda frame: frame.kind == "progress" and frame.data["value"] == 1)
        async with ann.comfy.socket("preview", FLAGS) as socket:
            await socket.until(lambda frame: frame.kind == "binary 4")
        await ann.comfy.post(f"/api/jobs/{prompt_id}/cancel")
        async with ann.comfy.socket("preview") as socket:
            await until_idle(socket)


async def test_a_browser_that_does_not_read_holds_nobody_up(ann: Someone) -> None:
    prompt = painting(7, steps=400)
    with await asyncio.to_thread(_deaf, ann, "deaf"):
        async with ann.comfy.socket("deaf", FLAGS) as reading:
            before = memory_kb(ann.cluster.process.pid)
            for seed in range(7, 10):
                prompt["3"]["inputs"]["seed"] = seed
                frames = await reading.job(await ann.comfy.submit(prompt, "deaf"))
                assert [frame.kind for frame in frames].count("progress") == 400
                assert frames[-2].kind == "execution_success"
            assert memory_kb(ann.cluster.process.pid) - before < 100_000


async def test_signing_out_ends_the_sockets_of_that_login_alone(ann: Someone) -> None:
    form = {"username": ann.person.name, "password": ann.person.password}
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(ann.cluster.url, cookie_jar=jar, headers={"Origin": ann.cluster.url}) as browser:
        async with browser.post("/cluster/login", data=form) as signed_in:
            assert signed_in.status == 200
        async with browser.ws_connect("/ws?clientId=gone") as gone, ann.comfy.socket("stays") as stays:
            assert (await gone.receive_json())["type"] == "status"
            async with browser.post("/cluster/logout") as signed_out:
                assert signed_out.status == 200
            end = await gone.receive(timeout=20)
            assert (end.type, gone.close_code) == (aiohttp.WSMsgType.CLOSE, 1008)
            await stays.job(await ann.comfy.submit(graphs.saved(8), "stays"))
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await browser.ws_connect("/ws?clientId=gone")
        assert refused.value.status == 401


async def test_a_session_that_restarts_leaves_the_sockets_and_the_job_alone(ann: Someone) -> None:
    async with ann.comfy.socket("staying") as socket:
        assert (await ann.comfy.get("/settings")).status == 200
        prompt_id = await ann.comfy.submit(painting(9, steps=100), "staying")
        await started(socket)
        assert (await ann.comfy.post("/cluster/api/v1/session/restart")).status == 200
        assert (await socket.job(prompt_id))[-2].kind == "execution_success"


async def test_a_user_s_oldest_tab_gives_way_to_the_fifty_first(ann: Someone, ben: Someone) -> None:
    async with contextlib.AsyncExitStack() as stack, ben.comfy.socket("ben") as other:
        tabs = [await stack.enter_async_context(ann.comfy.socket(f"tab{number}")) for number in range(TABS_LIMIT + 1)]
        end = await tabs[0].ws.receive(timeout=20)
        assert (end.type, tabs[0].ws.close_code) == (aiohttp.WSMsgType.CLOSE, 4000)
        await tabs[1].job(await ann.comfy.submit(graphs.saved(10), "tab1"))
        await other.job(await ben.comfy.submit(graphs.saved(10), "ben"))
    assert "too many tabs" in await asyncio.to_thread(ann.cluster.log)


@pytest.mark.parametrize("fragments", [1, 40])
async def test_a_tab_that_sends_what_no_client_sends_is_closed(ann: Someone, fragments: int) -> None:
    """The server counts while the parts come in: nothing is kept that is over the limit."""
    piece = b"x" * (2 * MESSAGE_BYTES // fragments)
    async with websockets.connect(
        f"{ann.comfy.url.replace('http', 'ws')}/ws?clientId=loud", proxy=None, compression=None
    ) as socket:
        await socket.recv()
        with contextlib.suppress(websockets.ConnectionClosed):
            await socket.send(iter([piece] * fragments) if fragments > 1 else piece)
        await asyncio.wait_for(socket.wait_closed(), 20)
        assert socket.close_code in (1009, 1006)  # a reset may overtake the close frame while parts are still sent
    async with ann.comfy.socket("quiet") as quiet:
        await quiet.ws.send_str("x" * (MESSAGE_BYTES - 1))
        await quiet.job(await ann.comfy.submit(graphs.saved(11), "quiet"))


def _deaf(someone: Someone, client_id: str) -> sockets.socket:
    """A WebSocket of that person that is never read from."""
    url = urlsplit(someone.cluster.url)
    deaf = sockets.socket()
    deaf.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    deaf.connect((url.hostname, url.port))
    deaf.sendall(
        f"GET /ws?clientId={client_id} HTTP/1.1\r\nHost: {url.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {someone.person.token}\r\n\r\n".encode()
    )
    assert deaf.recv(12) == b"HTTP/1.1 101"
    return deaf
