"""What a request's body may cost: its size, its parts, the time it takes; on a real server."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from proxy import request_body
from proxy.base.errors import BadInput
from proxy.comfy import request as comfy_request
from tests.proxy.control_server import Server, serving

COMMANDS = ("/queue", "/history", "/interrupt", "/free", "/api/jobs/cancel")
WAIT_S = 20.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path, max_prompt_mb=2) as running:
        yield running


@pytest.fixture
async def token(server: Server) -> str:
    """Ann's."""
    ann = await server.user("Ann")
    return (await server.cluster.people.access.tokens.create(ann.key, "test"))[1]


@pytest.mark.parametrize(("path", "limit_mb"), [*((path, 1) for path in COMMANDS), ("/prompt", 2)])
async def test_each_route_takes_what_it_needs_and_no_more(server: Server, token: str, path: str, limit_mb: int) -> None:
    """One that says how large it is and one that does not; what is just small enough is read."""

    async def blocks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b" " * (1 << 16)

    async with server.browser(Authorization=f"Bearer {token}") as ann:
        large = await ann.post(path, content=b" " * (limit_mb << 20) + b" ")
        assert large.status_code == 413 and large.json()["error"]["type"] == "too_large"
        assert f"{limit_mb} MB" in large.json()["error"]["message"]
        assert (await ann.post(path, content=blocks(16 * limit_mb + 1))).status_code == 413
        assert (await ann.post(path, content=blocks(16 * limit_mb))).status_code in (200, 400)


async def test_a_size_that_is_said_is_refused_before_anything_is_read(server: Server, token: str) -> None:
    answer = await exchange(
        server, f"POST /prompt HTTP/1.1\r\nAuthorization: {token}\r\nConnection: close\r\nContent-Length: 2097153"
    )
    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "body", [b'{"a":[' + b"[]," * 260_000 + b"[]]}", b"[" + b"1," * 600_000 + b"1]"], ids=["lists", "numbers"]
)
async def test_a_body_of_endless_parts_is_refused_before_it_is_parsed(server: Server, token: str, body: bytes) -> None:
    async with server.browser(Authorization=f"Bearer {token}") as ann:
        answer = await ann.post("/prompt", content=body)
        assert answer.status_code == 400 and "too many parts" in answer.json()["error"]["message"]


async def test_large_bodies_are_parsed_beside_the_loop_and_two_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = most = 0
    parse = comfy_request._parse
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def counted(body: bytes) -> object:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        asyncio.run_coroutine_threadsafe(done.wait(), loop).result(WAIT_S)  # would never end on the loop's own thread
        under_way -= 1
        return parse(body)

    monkeypatch.setattr(comfy_request, "_parse", counted)
    body = json.dumps({"a": "x" * comfy_request.INLINE_LIMIT}).encode()
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        tasks = [group.create_task(comfy_request._parsed(body)) for _ in range(6)]
        while under_way < comfy_request.PARSED_AT_ONCE:
            await asyncio.sleep(0)
        done.set()
    assert most == comfy_request.PARSED_AT_ONCE
    assert all(task.result() == json.loads(body) for task in tasks)


@pytest.mark.parametrize(
    ("path", "key"), [("/queue", "delete"), ("/history", "delete"), ("/api/jobs/cancel", "job_ids")]
)
async def test_a_command_names_as_many_jobs_as_a_statement_takes(
    server: Server, token: str, path: str, key: str
) -> None:
    async with server.browser(Authorization=f"Bearer {token}") as ann:
        answer = await ann.post(path, json={key: ["x"] * (comfy_request.IDS_LIMIT + 1)})
        assert answer.status_code == 400 and f"at most {comfy_request.IDS_LIMIT}" in answer.json()["error"]["message"]
        assert (await ann.post(path, json={key: ["x"] * comfy_request.IDS_LIMIT})).status_code == 200


@pytest.mark.parametrize("signed_in", [True, False])
async def test_an_address_without_a_slash_is_refused(server: Server, token: str, signed_in: bool) -> None:
    who = f"Authorization: {token}\r\n" if signed_in else ""
    answer = await exchange(server, f"OPTIONS * HTTP/1.1\r\n{who}Connection: close")
    assert answer.startswith(b"HTTP/1.1 400") and b'"bad_request"' in answer


async def test_what_is_wrong_with_a_large_body_is_told() -> None:
    with pytest.raises(BadInput, match="not JSON"):
        await comfy_request._parsed(b"[" + b" " * comfy_request.INLINE_LIMIT)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/cluster/login", "application/x-www-form-urlencoded"),
        ("/prompt", "application/json"),
        ("/queue", "application/json"),
        ("/cluster/api/v1/tokens", "application/json"),
    ],
)
@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_a_body_that_stands_still_costs_the_connection(
    server: Server, token: str, path: str, kind: str, framing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before any login."""
    monkeypatch.setattr(request_body, "IDLE_S", 0.1)
    who = "" if path == "/cluster/login" else f"Authorization: {token}\r\n"
    if path.startswith("/cluster/api"):
        cookie = await server.cluster.people.access.logins.start(1, "10.0.0.1", "")
        who = f"Cookie: comfy_cluster_login={cookie}\r\n"
    head = f"POST {path} HTTP/1.1\r\n{who}Content-Type: {kind}\r\n{framing}"
    answer = await exchange(server, head, b"5\r\nhello\r\n")
    assert answer.startswith(b"HTTP/1.1 408")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "request_timeout"


async def test_a_body_that_trickles_for_ever_ends_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, the whole never does."""
    monkeypatch.setattr(request_body, "IDLE_S", WAIT_S)
    async with serving(tmp_path, transfer_timeout_s=0.3) as server:
        await server.user("Ann")  # by then it listens
        answer = await exchange(
            server,
            "POST /cluster/login HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9999",
            b"x",
            again=True,
        )
    assert answer.startswith(b"HTTP/1.1 408")


async def exchange(server: Server, head: str, start: bytes = b"", *, again: bool = False) -> bytes:
    """Everything the server answers until it closes, to a body that begins with `start` and does not end."""
    url = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(f"{head}\r\nHost: x\r\n\r\n".encode() + start)

    async def trickle() -> None:
        with contextlib.suppress(ConnectionError):
            while again:
                await asyncio.sleep(0.02)
                writer.write(start)
                await writer.drain()

    answer = b""
    try:
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
            trickling = group.create_task(trickle())
            with contextlib.suppress(ConnectionError):  # what was not read of ours may reset the connection afterwards
                while chunk := await reader.read(65_536):
                    answer += chunk
            trickling.cancel()
        return answer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
