"""Unsafe requests from other sites' pages are refused everywhere under /cluster/, the login form included."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.proxy.control_server import API, PASSWORD, Server, serving


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path, allowed_origins=["https://studio.example"]) as running:
        await running.user("Ann")
        yield running


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://studio.example.evil.example"},
    ],
)
async def test_foreign_pages_are_refused(server: Server, headers: dict[str, str]) -> None:
    form = {"username": "Ann", "password": PASSWORD}
    async with server.browser() as stranger:
        answer = await stranger.post("/cluster/login", data=form, headers=headers)
        assert answer.status_code == 403 and "set-cookie" not in answer.headers
    async with server.signed_in("Ann") as ann:
        assert (await ann.post("/cluster/logout", headers=headers)).status_code == 403
        answer = await ann.post(f"{API}/tokens", json={"name": "stolen"}, headers=headers)
        assert answer.status_code == 403 and answer.json()["error"]["type"] == "forbidden"
        assert (await ann.get(f"{API}/tokens")).json() == {"tokens": []}
        assert (await ann.get(f"{API}/me", headers=headers)).status_code == 200


async def test_our_own_pages_allowed_origins_and_programs_pass(server: Server) -> None:
    async with server.signed_in("Ann") as ann:
        for number, headers in enumerate(
            ({}, {"Origin": server.url}, {"Origin": "https://studio.example"}, {"Sec-Fetch-Site": "same-origin"})
        ):
            answer = await ann.post(f"{API}/tokens", json={"name": f"token {number}"}, headers=headers)
            assert answer.status_code == 201, answer.text
