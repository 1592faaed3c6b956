"""Who answers which path, and what the edge does before anybody answers."""

from pathlib import Path

import aiohttp
import pytest

from proxy.access.tokens import create_now
from proxy.comfy.routes import owns
from proxy.edge import SID_LENGTH
from tests.proxy.control_server import Server, serving


@pytest.mark.parametrize(
    "path",
    ["/prompt", "/api/prompt", "/queue/", "/history/a%2Fb", "/object_info/a/b", "/api/jobs", "/api/jobs/x/cancel",
     "/experiment/models", "/api/experiment/models/loras", "/models", "/view_metadata/loras", "/features"],
)  # fmt: skip
def test_what_the_proxy_answers(path: str) -> None:
    assert owns(path)


@pytest.mark.parametrize(
    "path",
    ["/", "/api", "/api/", "/jobs", "/api/api/jobs", "/promptx", "/xprompt", "/internal/queue", "/settings",
     "/userdata/prompt", "/extensions/queue/a.js", "/experiment", "//prompt", "/cluster/queue"],
)  # fmt: skip
def test_what_it_does_not(path: str) -> None:
    assert not owns(path)


async def token(server: Server, name: str) -> str:
    await server.user(name)
    return create_now(server.cluster.people.access.users._db, name, "test")


@pytest.mark.parametrize("given", ["", "x" * (SID_LENGTH + 1), "a\tb"])
async def test_an_unusable_client_id_is_replaced(tmp_path: Path, given: str) -> None:
    async with serving(tmp_path) as server, aiohttp.ClientSession(trust_env=False) as http:
        headers = {"Authorization": f"Bearer {await token(server, 'Ann')}"}
        async with http.ws_connect(f"{server.url}/ws", params={"clientId": given}, headers=headers) as socket:
            status = await socket.receive_json(timeout=10)
            assert status["type"] == "status" and status["data"]["sid"] not in ("", given)
        async with http.ws_connect(f"{server.url}/ws?clientId=mine", headers=headers) as socket:
            assert (await socket.receive_json(timeout=10))["data"]["sid"] == "mine"


async def test_other_sites_pages_may_not_use_a_login_and_programs_may_use_a_token(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        bearer = {"Authorization": f"Bearer {await token(server, 'Ann')}"}
        foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        async with server.signed_in("Ann") as browser:
            assert (await browser.post("/interrupt", headers=foreign)).status_code == 403
            assert (await browser.post("/interrupt")).status_code == 200
            assert (await browser.get("/queue", headers=foreign)).status_code == 200  # reading is the browser's to stop
        async with server.browser(**bearer) as program:
            assert (await program.post("/interrupt", headers=foreign)).status_code == 200
