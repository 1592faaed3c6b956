"""The connections to a session: what they make of odd answers, and how many there are."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from proxy.forward import upstream_pool
from proxy.forward.upstream_connection import Connection, NotSent, UpstreamBroken
from proxy.forward.upstream_pool import Pool
from tests.proxy.forward.rig import WAIT_S, open_files, shut

Work = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
REQUEST = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"


@asynccontextmanager
async def pool_to(work: Work, limit: int = 8, timeout_s: float = WAIT_S) -> AsyncIterator[Pool]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await work(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            await shut(writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    pool = Pool(None, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", limit=limit, timeout_s=timeout_s)
    try:
        async with asyncio.timeout(WAIT_S):
            yield pool
    finally:
        await pool.close()
        server.close()
        await server.wait_closed()


def answering(*answers: bytes, close: bool = False) -> Work:
    """One answer for each request on a connection."""

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        if not close:
            await reader.read()

    return work


async def whole(connection: Connection) -> bytes:
    parts = [connection.read_now()]
    while not connection.ended:
        parts.append(await connection.read())
    return b"".join(parts)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1;x=y\r\n!\r\n0\r\nX-Trailer: 1\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK, b"ok"),
        (CHUNKED, b"ok!"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", b""),
    ],
    ids=["length", "chunked with trailer", "interim answers", "204", "304 with a length"],
)
async def test_connection_serves_again(answer: bytes, body: bytes) -> None:
    async with pool_to(answering(answer, answer)) as pool:
        first = await pool.ask("GET", REQUEST, repeatable=True)
        assert await whole(first) == body
        assert not {b"link", b"x-trailer"} & {name for name, _ in first.headers}
        pool.give(first)
        second = await pool.ask("GET", REQUEST, repeatable=True)
        assert second is first
        assert await whole(second) == body
        pool.give(second)


async def test_head_has_no_body_and_the_connection_serves_again() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
    async with pool_to(answering(answer, OK)) as pool:
        first = await pool.ask("HEAD", REQUEST, repeatable=True)
        assert await whole(first) == b"" and (b"content-length", b"99") in first.headers
        pool.give(first)
        second = await pool.ask("GET", REQUEST, repeatable=True)
        assert second is first and await whole(second) == b"ok"
        pool.give(second)


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"HTTP/1.1 200 OK\r\n\r\nsmuggled",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["more than one answer", "close", "old"],
)
async def test_connection_does_not_serve_again(answer: bytes) -> None:
    async with pool_to(answering(answer)) as pool:
        first = await pool.ask("GET", REQUEST, repeatable=True)
        assert await whole(first) == b"ok"
        pool.give(first)
        second = await pool.ask("GET", REQUEST, repeatable=True)
        assert second is not first
        pool.give(second)


async def test_body_until_the_end_of_the_connection() -> None:
    async with pool_to(answering(b"HTTP/1.1 200 OK\r\n\r\nall there is", close=True)) as pool:
        connection = await pool.ask("GET", REQUEST, repeatable=True)
        assert await whole(connection) == b"all there is"
        assert not connection.reusable
        pool.give(connection)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", b"SSH-2.0-x\r\n"])
async def test_no_answer(answer: bytes) -> None:
    async with pool_to(answering(answer, close=True)) as pool:
        with pytest.raises(UpstreamBroken):
            await pool.ask("GET", REQUEST, repeatable=True)


async def test_server_that_closes_every_connection_at_once() -> None:
    async def slam(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with pool_to(slam) as pool:
        for _ in range(20):
            with pytest.raises(UpstreamBroken):
                await pool.ask("GET", REQUEST, repeatable=True)


async def test_words_nobody_asked_for_close_an_idle_connection() -> None:
    speak = asyncio.Event()

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(OK, close=True)(reader, writer)
        await speak.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await reader.read()

    async with pool_to(work) as pool:
        first = await pool.ask("GET", REQUEST, repeatable=True)
        await whole(first)
        pool.give(first)
        speak.set()
        while not first.closed:
            await asyncio.sleep(0)
        second = await pool.ask("GET", REQUEST, repeatable=True)
        assert second is not first and await whole(second) == b"ok"
        pool.give(second)


async def test_the_limit_makes_others_wait_and_then_give_up() -> None:
    async with pool_to(answering(OK), limit=1, timeout_s=0.2) as pool:
        first = await pool.ask("GET", REQUEST, repeatable=True)
        with pytest.raises(TimeoutError):
            await pool.take()
        pool.give(first)
        pool.give(first)  # twice frees one place only
        second = await pool.take()
        with pytest.raises(TimeoutError):
            await pool.take()
        pool.give(second)


async def test_a_stalled_upload_is_let_go_at_once() -> None:
    gone = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await gone.wait()

    async with pool_to(deaf) as pool:
        before = open_files()
        connection = await pool.take()
        connection.send("POST", b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 99999999\r\n\r\n")

        async def write_on() -> None:
            while True:
                await connection.write(b"x" * 100_000)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(write_on(), 0.3)
        pool.give(connection)
        while not connection.lost:
            await asyncio.sleep(0)
        assert open_files() <= before + 1, "our end is still open"  # the server's end is
        gone.set()


async def test_idle_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_pool, "KEEPALIVE_S", 0.05)
    async with pool_to(answering(OK)) as pool:
        connection = await pool.ask("GET", REQUEST, repeatable=True)
        await whole(connection)
        pool.give(connection)
        while not connection.lost:
            await asyncio.sleep(0.01)


async def test_closing_ends_requests_under_way() -> None:
    async with pool_to(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\npart")) as pool:
        connection = await pool.ask("GET", REQUEST, repeatable=True)
        await pool.close()
        with pytest.raises(UpstreamBroken):
            await whole(connection)
        pool.give(connection)
        with pytest.raises(UpstreamBroken):
            await pool.take()


async def test_draining_lets_answers_end_and_takes_no_more() -> None:
    go_on = asyncio.Event()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        await go_on.wait()
        writer.write(b"k")
        await reader.read()

    async with pool_to(slowly) as pool:
        connection = await pool.ask("GET", REQUEST, repeatable=True)
        assert pool.busy
        async with asyncio.TaskGroup() as group:
            group.create_task(pool.drain(WAIT_S))
            await asyncio.sleep(0)
            with pytest.raises(NotSent):
                await pool.take()
            go_on.set()
            assert await whole(connection) == b"ok"
            pool.give(connection)  # upon which the drain is over
        assert not pool.busy


async def test_draining_ends_with_its_limit() -> None:
    async with pool_to(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\npart")) as pool:
        connection = await pool.ask("GET", REQUEST, repeatable=True)
        await pool.drain(0.01)
        with pytest.raises(UpstreamBroken):
            await whole(connection)
        pool.give(connection)
