"""What real clients demand of a login: tokens however they are sent, refusals they can read (E1), storms (B10)."""

import base64

import aiohttp
import pytest

from tests.system.people import Someone


async def test_b10_reconnect_storms_without_a_login_are_throttled(ann: Someone) -> None:
    """Bad tokens, as fast as they can be sent: 401 turns into 429 with a time to wait."""
    statuses = []
    async with aiohttp.ClientSession() as http:
        for attempt in range(80):
            url = f"{ann.cluster.url}/ws?clientId=storm&token=bad{attempt}"
            headers = {"X-Forwarded-For": "203.0.113.9"}
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(url, headers=headers)
            statuses.append(refused.value.status)
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert refused.value.headers is not None
    assert int(refused.value.headers["Retry-After"]) > 0


ERRORS = {
    "no login": ("GET", "/queue", None, 401),
    "no json": ("POST", "/prompt", b"{", 400),
    "no prompt": ("POST", "/prompt", b"{}", 400),
    "unknown": ("GET", "/history/a/b/c", None, 404),
    "method": ("PUT", "/queue", None, 405),
    "number": ("GET", "/history?max_items=x", None, 400),
}


@pytest.mark.parametrize("case", ERRORS)
async def test_e1_errors_are_objects_in_comfyuis_shape(ann: Someone, case: str) -> None:
    method, path, body, status = ERRORS[case]
    headers = {} if case == "no login" else ann.bearer
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, ann.cluster.url + path, data=body, headers=headers, allow_redirects=False) as answer,
    ):
        told = await answer.json()
        assert answer.status == status
        assert set(told["error"]) == {"type", "message", "details", "extra_info"}
        assert isinstance(told["error"]["message"], str)
        assert ("node_errors" in told) is (case == "no prompt")


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
async def test_e1_only_pages_are_redirected_to_the_login(ann: Someone, accept: str) -> None:
    async with aiohttp.ClientSession(headers={"Accept": accept}) as http:
        for path in ("/", "/api/queue", "/cluster/api/v1/me"):
            async with http.get(ann.cluster.url + path, allow_redirects=False) as answer:
                assert answer.status == 401, path
                assert answer.content_type == "application/json"
        async with http.get(f"{ann.cluster.url}/", headers={"Accept": "text/html"}, allow_redirects=False) as page:
            assert (page.status, page.headers["Location"]) == (303, "/cluster/login?next=/")


async def test_e1_a_websocket_without_a_login_fails_its_handshake(ann: Someone) -> None:
    async with aiohttp.ClientSession() as http:
        for path in ("/ws", "/api/ws?clientId=1", "/other/socket"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(ann.cluster.url + path)
            assert refused.value.status == 401


WAYS = ["bearer", "bare", "basic", "basic name", "query", "key", "path"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_token_signs_in_however_it_is_presented(ann: Someone, way: str) -> None:
    token = ann.person.token
    headers: dict[str, str] = {
        "bearer": {"Authorization": f"Bearer {token}"},
        "bare": {"Authorization": token},
        "basic": {"Authorization": _basic("anybody", token)},
        "basic name": {"Authorization": _basic(token, "")},
        "key": {"X-API-Key": token},
    }.get(way, {})
    prefix = f"/t/{token}" if way == "path" else ""
    query = f"?token={token}" if way == "query" else ""
    async with aiohttp.ClientSession(headers=headers) as http:
        for path in ("/queue", "/api/settings", "/cluster/api/v1/me"):
            async with http.get(f"{ann.cluster.url}{prefix}{path}{query}") as answer:
                assert answer.status == 200, path
        async with http.ws_connect(f"{ann.cluster.url}{prefix}/ws{query}") as ws:
            assert (await ws.receive_json())["type"] == "status"


def _basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()
