"""The session's own socket: first frames, log lines, and readers that are slow, late or rude."""

import asyncio
import contextlib
import logging

import aiohttp
import pytest

from tests.user_sessions.light.conftest import Running
from user_sessions.light.socket import OUTBOX_FRAMES, Outbox


async def subscribe(session: Running, sid: object, enabled: object = True) -> int:
    """PATCH /internal/logs/subscribe; returns the status."""
    async with session.http.patch("/internal/logs/subscribe", json={"clientId": sid, "enabled": enabled}) as response:
        return response.status


@pytest.mark.parametrize("path", ["/ws", "/api/ws"])
async def test_status_comes_first_and_carries_the_sid(session: Running, path: str) -> None:
    async with session.http.ws_connect(f"{path}?clientId=tab-1") as socket:
        frame = await socket.receive_json(timeout=10)
    assert frame == {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "tab-1"}}


async def test_without_an_id_one_is_given(session: Running) -> None:
    async with session.http.ws_connect("/ws") as socket:
        assert len((await socket.receive_json(timeout=10))["data"]["sid"]) == 32


async def test_flags_are_answered_once_and_only_first(session: Running) -> None:
    async with session.http.ws_connect("/ws?clientId=a") as socket:
        await socket.receive_json(timeout=10)
        await socket.send_str("{not json")
        await socket.send_bytes(b"\x00\x01")
        await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        frame = await socket.receive_json(timeout=10)
        assert frame["type"] == "feature_flags"
        assert frame["data"]["supports_preview_metadata"] is True
        await socket.send_json({"type": "feature_flags", "data": {}})
        assert await subscribe(session, "a") == 200
        logging.getLogger("x").warning("marker")
        assert (await socket.receive_json(timeout=10))["type"] == "logs"


async def test_log_lines_reach_subscribers_only(session: Running) -> None:
    async with session.http.ws_connect("/ws?clientId=a") as one, session.http.ws_connect("/ws?clientId=b") as two:
        await one.receive_json(timeout=10)
        await two.receive_json(timeout=10)
        assert await subscribe(session, "a") == 200
        assert await subscribe(session, "nobody") == 200
        await asyncio.to_thread(logging.getLogger("x").warning, "from a thread")
        frame = await one.receive_json(timeout=10)
        assert frame["type"] == "logs"
        assert set(frame["data"]) == {"entries", "size"}
        assert frame["data"]["entries"][0]["m"].endswith("x: from a thread\n")
        assert await subscribe(session, "a", enabled=False) == 200
        assert await subscribe(session, "b") == 200
        logging.getLogger("x").warning("for the second")
        assert "for the second" in (await two.receive_json(timeout=10))["data"]["entries"][0]["m"]
        assert await subscribe(session, "a") == 200
        logging.getLogger("x").warning("third")
        assert "third" in (await one.receive_json(timeout=10))["data"]["entries"][0]["m"]


async def test_a_late_end_of_an_old_socket_leaves_the_new_one(session: Running) -> None:
    old = await session.http.ws_connect("/ws?clientId=a")
    await old.receive_json(timeout=10)
    async with session.http.ws_connect("/ws?clientId=a") as new:
        await new.receive_json(timeout=10)
        assert await subscribe(session, "a") == 200
        await old.close()
        logging.getLogger("x").warning("still here")
        assert "still here" in (await new.receive_json(timeout=10))["data"]["entries"][0]["m"]


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"clientId": 5, "enabled": true}', '{"clientId": "a"}'])
async def test_malformed_subscriptions(session: Running, body: str) -> None:
    async with session.http.patch("/internal/logs/subscribe", data=body) as response:
        assert response.status == 400


async def test_a_message_beyond_the_limit_closes_that_socket_alone(session: Running) -> None:
    async with session.http.ws_connect("/ws?clientId=a") as rude, session.http.ws_connect("/ws?clientId=b") as other:
        await rude.receive_json(timeout=10)
        await other.receive_json(timeout=10)
        with contextlib.suppress(ConnectionError):  # refused while it is still being sent, or after
            await rude.send_str("x" * (5 * 1024 * 1024))
        refused = {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
        assert (await rude.receive(timeout=10)).type in refused
        await other.send_json({"type": "feature_flags", "data": {}})
        assert (await other.receive_json(timeout=10))["type"] == "feature_flags"


async def test_a_plain_request_is_no_handshake(session: Running) -> None:
    async with session.http.get("/ws") as response:
        assert response.status == 400


async def test_an_outbox_drops_the_oldest() -> None:
    outbox = Outbox()
    for number in range(OUTBOX_FRAMES + 10):
        outbox.put("logs", number)
    assert outbox._frames.qsize() == OUTBOX_FRAMES
    assert outbox._frames.get_nowait() == '{"type": "logs", "data": 10}'
