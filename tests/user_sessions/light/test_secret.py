"""A session answers its proxy only, and handlers never see how it knows."""

from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.user_sessions.light.conftest import SECRET, Running
from user_sessions.light.answers import errors_as_json
from user_sessions.light.secret import only_with
from user_sessions.runtime import SECRET_HEADER


@pytest.mark.parametrize("path", ["/", "/api/settings", "/view?filename=a.png", "/ws", "/no/such/route"])
@pytest.mark.parametrize("given", [[], ["wrong"], [SECRET, SECRET], ["wrong", SECRET], [SECRET + "x"], [""]])
async def test_requests_without_the_secret_get_403_on_every_route(
    session: Running, path: str, given: list[str]
) -> None:
    connector = aiohttp.UnixConnector(str(session.spec.socket))
    headers = [(SECRET_HEADER, value) for value in given]
    async with (
        aiohttp.ClientSession("http://session", connector=connector) as http,
        http.get(path, headers=headers) as response,
    ):
        assert response.status == 403
        assert (await response.json())["error"]["type"] == "forbidden"


async def test_a_socket_without_the_secret_fails_its_handshake(session: Running) -> None:
    connector = aiohttp.UnixConnector(str(session.spec.socket))
    async with aiohttp.ClientSession("http://session", connector=connector) as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await http.ws_connect("/ws")
    assert error.value.status == 403


async def test_the_secret_is_stripped_and_other_headers_stay(folder: Path) -> None:
    async def show(request: web.Request) -> web.Response:
        names = [name.decode() for name, _ in request.raw_headers] + list(request.headers)
        return web.json_response({"names": names, "other": request.headers["X-Other"], "body": await request.text()})

    app = web.Application(middlewares=[errors_as_json, only_with(SECRET)])
    app.add_routes([web.post("/{tail:.*}", show)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(folder / "s.sock")).start()
        connector = aiohttp.UnixConnector(str(folder / "s.sock"))
        async with aiohttp.ClientSession("http://session", connector=connector) as http:
            headers = {SECRET_HEADER.lower(): SECRET, "X-Other": "kept"}
            async with http.post("/a", headers=headers, data="text") as response:
                seen = await response.json()
    finally:
        await runner.cleanup()
    assert seen["other"] == "kept"
    assert seen["body"] == "text"
    assert SECRET_HEADER.lower() not in {name.lower() for name in seen["names"]}


async def test_a_header_that_is_no_text_is_refused_not_fatal(session: Running) -> None:
    status, _ = await session.raw("GET /users HTTP/1.1\r\nX-Odd: \udcff\udcfe")
    assert status == 400
    status, _ = await session.raw("GET /users HTTP/1.1")
    assert status == 200
