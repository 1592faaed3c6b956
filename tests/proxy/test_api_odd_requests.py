"""Requests to the JSON API that no page makes: malformed, oversized, odd."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.proxy.api_answers import error
from tests.proxy.control_server import API, Server, serving


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as running:
        await running.user("root", admin=True)
        yield running


async def test_malformed_bodies_are_400(server: Server) -> None:
    async with server.signed_in("root") as root:
        for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"name": 5}', b'{"name": null}', b"[" * 60_000):
            answer = await root.post(f"{API}/tokens", content=body)
            assert answer.status_code == 400 and error(answer)["type"] == "bad_request", body[:9]


async def test_a_bad_body_is_not_repeated_in_the_answer(server: Server) -> None:
    async with server.signed_in("root") as root:
        answer = await root.post(f"{API}/me/password", json={"current": "my secret", "new": 5, "x": "my secret"})
        assert answer.status_code == 400 and "my secret" not in answer.text


async def test_oversized_bodies_are_413_before_they_are_read(server: Server) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1024

    async with server.signed_in("root") as root:
        for content in (b"x" * 70_000, endless()):
            answer = await root.post(f"{API}/tokens", content=content)
            assert answer.status_code == 413 and error(answer)["type"] == "too_large"


ODD_REQUESTS = (
    ("GET", "/nothing", 404),
    ("GET", "/", 404),
    ("PUT", "/me", 405),
    ("GET", "/jobs?limit=x", 400),
    ("GET", "/jobs?limit=0", 400),
    ("GET", "/pictures?before=-1", 400),
    ("POST", "/jobs/x/cancel", 404),
    ("POST", "/jobs/0/cancel", 404),
    ("POST", f"/jobs/{'9' * 19}/cancel", 404),
    ("POST", f"/jobs/{'9' * 5000}/cancel", 404),
    ("POST", "/jobs/%D9%A3/cancel", 404),
    ("DELETE", "/tokens/1%2F2", 404),
    ("DELETE", "/logins/..", 404),
    ("DELETE", "/logins/%00", 404),
    ("POST", "/openapi.json", 405),
)


async def test_odd_requests_are_answered_in_json(server: Server) -> None:
    async with server.signed_in("root") as root:
        for method, path, status in ODD_REQUESTS:
            answer = await root.request(method, API + path)
            assert answer.status_code == status, path[:40]
            error(answer)
