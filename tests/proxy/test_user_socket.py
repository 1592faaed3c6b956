"""One browser's queue of frames: what waits, what is dropped, when it is given up. The browser is a bare ASGI peer."""

import asyncio
import json
import struct
from collections.abc import MutableMapping
from typing import Any

import pytest
from starlette.websockets import WebSocket

from backend_pool.comfy.frames import encode
from proxy.tabs.user_socket import BYTES_LIMIT, UserSocket

LIMIT = 8
WAIT_S = 10.0
Message = MutableMapping[str, Any]


class Browser:
    """Reads while `reading` is set."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self.said: asyncio.Queue[Message] = asyncio.Queue()
        self.heard: asyncio.Queue[Message] = asyncio.Queue()
        self.said.put_nowait({"type": "websocket.connect"})
        self.tab = UserSocket(
            WebSocket({"type": "websocket", "headers": []}, self.said.get, self._send), 1, "sid", limit=LIMIT,
            max_upload_mb=1,
        )  # fmt: skip

    async def _send(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            await self.reading.wait()
        self.heard.put_nowait(message)

    async def serve(self) -> None:
        await self.tab._socket.accept()
        await self.tab.serve(asyncio.sleep(3600))

    async def next(self) -> Message:
        return await asyncio.wait_for(self.heard.get(), WAIT_S)

    async def sends(self) -> Any:
        message = await self.next()
        return message.get("text") or message.get("bytes")


@pytest.fixture
async def browser() -> Any:
    one = Browser()
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(one.serve())
        assert (await one.next())["type"] == "websocket.accept"
        yield one
        one.said.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait_for(serving, WAIT_S)


def preview(number: int, size: int = 4) -> bytes:
    return struct.pack(">II", 1, number) + bytes(size)


def progress(number: int) -> str:
    return encode("progress", {"value": number})


def result(number: int) -> str:
    return encode("executed", {"node": str(number)})


async def stuck(browser: Browser) -> None:
    """A first frame is on its way to a browser that does not read."""
    browser.tab.push("first")
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_frames_arrive_in_order(browser: Browser) -> None:
    browser.reading.set()
    for number in range(LIMIT):
        browser.tab.push(result(number))
    assert [await browser.sends() for _ in range(LIMIT)] == [result(number) for number in range(LIMIT)]


async def test_previews_go_first_then_progress_and_results_never(browser: Browser) -> None:
    await stuck(browser)
    for number in range(4):
        browser.tab.push(preview(number))
        browser.tab.push(progress(number))
    for number in range(6):
        browser.tab.push(result(number))
    browser.reading.set()
    assert await browser.sends() == "first"
    left = [await browser.sends() for _ in range(LIMIT)]
    assert left == [progress(2), progress(3), *[result(number) for number in range(6)]]


async def test_a_nodes_text_goes_after_progress(browser: Browser) -> None:
    await stuck(browser)
    text = struct.pack(">II", 3, 1) + b"8shown"
    browser.tab.push(text)
    browser.tab.push(progress(0))
    for number in range(LIMIT - 1):
        browser.tab.push(result(number))
    browser.reading.set()
    assert await browser.sends() == "first"
    assert await browser.sends() == text
    assert [await browser.sends() for _ in range(LIMIT - 1)] == [result(number) for number in range(LIMIT - 1)]


async def test_too_many_bytes_are_too_much_too(browser: Browser) -> None:
    await stuck(browser)
    for number in range(4):
        browser.tab.push(preview(number, BYTES_LIMIT // 3))
    browser.reading.set()
    assert await browser.sends() == "first"
    assert [struct.unpack_from(">I", await browser.sends(), 4)[0] for _ in range(2)] == [2, 3]


async def test_a_browser_that_misses_a_result_is_closed(browser: Browser) -> None:
    await stuck(browser)
    for number in range(LIMIT + 1):
        browser.tab.push(result(number))
    closed = await browser.next()
    assert (closed["type"], closed["code"]) == ("websocket.close", 1013)


async def test_the_sessions_own_frames_wait_for_room(browser: Browser) -> None:
    await stuck(browser)
    for number in range(LIMIT // 2 + 1):
        browser.tab.push(result(number))
    async with asyncio.TaskGroup() as group:
        relayed = group.create_task(browser.tab.relay("log line"))
        await asyncio.sleep(0)
        assert not relayed.done()
        browser.reading.set()
    assert relayed.done()


async def test_flags_are_answered_and_previews_fitted_to_them(browser: Browser) -> None:
    browser.reading.set()
    with_metadata = struct.pack(">II", 4, 2) + b"{}" + b"jpeg"
    browser.tab.push(with_metadata)
    assert await browser.sends() == struct.pack(">II", 1, 1) + b"jpeg"
    flags = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
    browser.said.put_nowait({"type": "websocket.receive", "text": json.dumps(flags)})
    assert json.loads(await browser.sends())["type"] == "feature_flags"
    browser.tab.push(with_metadata)
    assert await browser.sends() == with_metadata


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"type": "feature_flags", "data": 3}', "[" * 50_000])
async def test_odd_first_words_harm_nothing(browser: Browser, text: str) -> None:
    browser.reading.set()
    browser.said.put_nowait({"type": "websocket.receive", "text": text})
    browser.tab.push("still here")
    while await browser.sends() != "still here":
        pass
