"""What a backend that means harm may do to the proxy: send it elsewhere, answer without end, answer a bomb."""

import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web

from backend_pool.comfy.answer_body import ANSWER_BYTES
from backend_pool.comfy.client import ComfyClient, FileRef, Timeouts
from backend_pool.errors import BackendBroken, FileGone
from backend_pool.offers.offer import Offer
from backend_pool.offers.reader import MAX_FOLDERS, OfferReader
from backend_pool.worker_pack.wire import SECRET_HEADER
from backend_pool.workers.client import MAX_FILES, WorkerClient

PATIENT = Timeouts(call_s=60, transfer_s=60, ping_s=20, max_frame_bytes=1000)
SECRET = "known-to-the-dispatcher"
FILE = FileRef("x.png", "", "output")
Answers = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(answer: Answers) -> AsyncIterator[str]:
    """A server with one answer to everything; its URL."""
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None  # aiohttp has no public way to the port
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client_of(answer: Answers) -> AsyncIterator[ComfyClient]:
    """A client of such a server, with a worker's secret."""
    async with answering(answer) as url:
        client = ComfyClient(url, PATIENT, {SECRET_HEADER: SECRET})
        try:
            yield client
        finally:
            await client.close()


def says(body: bytes, **headers: str) -> Answers:
    """The same body to everybody."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, headers=headers, content_type="application/json")

    return answer


async def opened(context: Any) -> None:
    """Enter and leave."""
    async with context:
        pass


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    """Else a backend reads, through the user's own outputs, whatever the proxy's machine can reach."""
    asked: list[str] = []

    async def inside(request: web.Request) -> web.StreamResponse:
        asked.append(f"{request.method} {request.path} {request.headers.get(SECRET_HEADER)}")
        return web.json_response({"name": "x.png", "the crown jewels": []})

    async with answering(inside) as target:

        async def elsewhere(_request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, headers={"Location": f"{target}/internal"})

        async with client_of(elsewhere) as client:
            worker = WorkerClient(client)
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: client.get_json("/queue"),
                lambda: client.get_bytes("/object_info", 60, ANSWER_BYTES),
                lambda: client.submit({}),
                lambda: client.post("/free", {}),
                lambda: client.overwrite(FILE, b"x"),
                lambda: client.has(FILE, 1),
                lambda: opened(client.view(FILE)),
                worker.about,
                lambda: worker.submit({}),
                lambda: worker.files("job"),
                lambda: opened(worker.file("job", "output/x.png", 0)),
                lambda: worker.forget("job"),
            ]
            for call in calls:
                with pytest.raises(BackendBroken, match="redirects to another address"):
                    await call()
            if status != 300:  # which aiohttp takes for a refusal of the handshake
                with pytest.raises(BackendBroken, match="redirects to another address"):
                    await opened(client.events("us"))
    assert asked == []


async def test_a_bomb_is_not_unpacked() -> None:
    """A few dozen KiB that would be several times what any answer may have."""
    bomb = gzip.compress(bytes(4 * ANSWER_BYTES))
    async with client_of(says(bomb, **{"Content-Encoding": "gzip"})) as client:
        worker = WorkerClient(client)
        calls: list[Awaitable[Any]] = [client.get_json("/queue"), client.submit({}), worker.about(), worker.submit({})]
        for call in calls:
            with pytest.raises(BackendBroken, match="more than 16 MB"):
                await call
        with pytest.raises(BackendBroken, match=r"answered x\.png packed"):
            await opened(client.view(FILE))
        with pytest.raises(BackendBroken, match="packed"):
            await opened(worker.file("job", "output/x.png", 0))


async def test_an_answer_without_end_is_left() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b" " * 65536)
        return response

    async with client_of(endless) as client:
        with pytest.raises(BackendBroken, match="more than 1 MB"):
            await client.get_bytes("/object_info", 60, 2**20)


@pytest.mark.parametrize(
    ("body", "packing", "words"),
    [
        (b"[" * 1_000_000, "", "did not answer JSON"),
        (b"{}", "gzip", "cannot be unpacked"),
        (gzip.compress(b"{}", mtime=0)[:-9], "gzip", "broke off"),
        (b"{}", "br", "packed as 'br'"),
    ],
    ids=["too deep", "not packed", "cut off", "another packing"],
)
async def test_nonsense_in_words(body: bytes, packing: str, words: str) -> None:
    async with client_of(says(body, **({"Content-Encoding": packing} if packing else {}))) as client:
        with pytest.raises(BackendBroken, match=words):
            await client.get_json("/queue")


async def test_a_packed_answer_is_read() -> None:
    """A ComfyUI started with --enable-compress-response-body."""
    known = {"queue_running": [], "queue_pending": [[0, "p", {"x": "y" * 100_000}]]}
    async with client_of(says(gzip.compress(json.dumps(known).encode()), **{"Content-Encoding": "gzip"})) as client:
        assert await client.get_json("/queue") == known
        assert await client.whereabouts("p") == "pending"


async def test_lists_have_an_end() -> None:
    """Folders of models beyond a number are not asked for; a job does not have files without end."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        if request.path == "/models":
            return web.json_response([f"folder{number}" for number in range(10 * MAX_FOLDERS)])
        if request.path == "/object_info":
            return web.json_response({"Node": {"input": {}}})
        if request.path.endswith("/files"):
            return web.json_response({"files": [{}] * (MAX_FILES + 1)})
        return web.json_response([])

    async with client_of(answer) as client:
        offer = await OfferReader(client, 0.0, 60.0).look(Offer())
        assert len(offer.models) == MAX_FOLDERS
        assert sum(path.startswith("/models/") for path in asked) == MAX_FOLDERS
        with pytest.raises(FileGone, match="more than"):
            await WorkerClient(client).files("job")


@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"files": 1, "missing": 1, "entries": 1}'])
async def test_a_worker_that_answers_otherwise(answer: bytes) -> None:
    """Nothing but BackendBroken, which the runner knows."""
    async with client_of(says(answer)) as client:
        worker = WorkerClient(client)
        calls: list[Awaitable[Any]] = [worker.files("job"), worker.missing(["x"]), worker.log("job")]
        for call in calls:
            with pytest.raises(BackendBroken):
                await call
