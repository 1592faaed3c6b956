"""What the HTTP relay passes and what it does not, over TCP and Unix sockets."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from proxy.base.settings import Settings
from tests.proxy.forward.echo import echo, seen
from tests.proxy.forward.rig import WAIT_S, Rig, browser, open_files, running


@pytest.fixture(params=["tcp", "unix"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(request.param, tmp_path, Settings(max_upload_mb=1)) as rig:
        yield rig


@pytest.mark.parametrize(
    "target",
    [
        "/userdata/workflows%2Fa%20b.json?overwrite=true&x=%5B%5d&y=a+b%2f&",
        "/view?filename=%E5%9B%BE.png&sub=..%2F",
        "/a/../b/./c//d;p=1",
        "//double/slash",
        "/a%0d%0aX-Injected:%201",
        "/%00%zz?%",
    ],
)
async def test_the_target_passes_byte_for_byte(rig: Rig, target: str) -> None:
    rig.handler = echo
    answer = await rig.exchange(f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert f'"target": "{target}"'.encode() in answer
    assert b"x-injected" not in answer.lower().split(b'"headers"')[1]


async def test_request_headers(rig: Rig) -> None:
    rig.handler = echo
    sent = [
        ("Connection", "keep-alive, X-Private"),
        ("X-Private", "no"),
        ("Keep-Alive", "5"),
        ("TE", "trailers"),
        ("Upgrade", "h2c"),
        ("Cookie", "theme=dark; comfy_cluster_login=secret; __Host-comfy_cluster_x=1; lang=de"),
        ("Authorization", "Bearer t"),
        ("X-API-Key", "t"),
        ("Comfy-User", ""),
        ("X-Cluster-Session-Secret", "forged"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6"),
        ("Origin", "https://studio.example"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Dest", "image"),
        ("X-Custom", "one"),
        ("X-Custom", "two"),
        ("Accept-Encoding", "br"),
        ("Host", "studio.example"),
    ]
    async with browser() as client, client.get(rig.url + "/x", headers=sent) as response:
        answer = await response.json()
    for gone in ("x-private", "keep-alive", "te", "upgrade", "authorization", "x-api-key", "comfy-user", "origin"):
        assert seen(answer, gone) == [], gone
    assert seen(answer, "forwarded") == seen(answer, "sec-fetch-site") == []
    assert seen(answer, "cookie") == ["theme=dark; lang=de"]
    assert seen(answer, "x-cluster-session-secret") == ["s3cret"]
    assert seen(answer, "x-forwarded-for") == ["127.0.0.1"]
    assert seen(answer, "x-forwarded-host") == ["studio.example"]
    assert seen(answer, "x-forwarded-proto") == ["http"]
    assert seen(answer, "x-custom") == ["one", "two"]
    assert seen(answer, "accept-encoding") == ["br"]
    assert seen(answer, "sec-fetch-dest") == ["image"]
    assert seen(answer, "host") == [rig.upstream.base_url.removeprefix("http://")]


async def test_headers_the_client_did_not_send_are_not_invented(rig: Rig) -> None:
    rig.handler = echo
    answer = await rig.exchange(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    for name in (b'"accept"', b'"user-agent"', b'"accept-encoding"', b'"content-type"', b'"cookie"'):
        assert name not in answer


async def test_response_headers(rig: Rig) -> None:
    async def handler(_request: web.Request) -> web.Response:
        response = web.Response(body=b"\x1f\x8bgz", headers={"Content-Encoding": "gzip", "ETag": '"e"'})
        response.headers.add("Set-Cookie", "a=1; Path=/")
        response.headers.add("Set-Cookie", "b=2; HttpOnly")
        response.headers.add("Set-Cookie", "comfy_cluster_login=stolen")
        response.headers["Cache-Control"] = "public, max-age=86400"
        response.headers["Connection"] = "X-Hop"
        response.headers["X-Hop"] = "1"
        return response

    rig.handler = handler
    async with browser() as client, client.get(rig.url + "/a.png") as response:
        assert await response.read() == b"\x1f\x8bgz"
        headers = response.headers
    assert headers.getall("Set-Cookie") == ["a=1; Path=/", "b=2; HttpOnly"]
    assert headers["Cache-Control"] == "private, max-age=86400"
    assert headers["Vary"] == "Cookie"
    assert headers["Content-Encoding"] == "gzip"
    assert headers["ETag"] == '"e"'
    assert "X-Hop" not in headers and "Server" not in headers
    assert len(headers.getall("Date")) == 1
    assert headers.getall("Content-Length") == ["4"]

    rig.private = False
    async with browser() as client, client.get(rig.url + "/a.png") as response:
        assert response.headers["Cache-Control"] == "public, max-age=86400"
        assert "Vary" not in response.headers


async def test_download_streams_before_it_is_complete(rig: Rig) -> None:
    go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await go_on.wait()
        await response.write(b"data: 2\n\n")
        return response

    rig.handler = handler
    async with browser() as client, client.get(rig.url + "/events") as response:
        assert await response.content.readany() == b"data: 1\n\n"
        go_on.set()
        assert await response.content.read() == b"data: 2\n\n"


async def test_response_head_does_not_wait_for_the_body(rig: Rig) -> None:
    go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await go_on.wait()
        await response.write(b"late")
        return response

    rig.handler = handler
    async with browser() as client, client.get(rig.url + "/") as response:
        assert response.status == 200
        go_on.set()
        assert await response.read() == b"late"


async def test_head_304_204_and_range(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "f.bin"
    file.write_bytes(bytes(range(256)) * 4000)

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=204) if request.path == "/204" else web.FileResponse(file)

    rig.handler = handler
    async with browser() as client:
        async with client.head(rig.url + "/f") as response:
            assert (response.status, response.headers["Content-Length"]) == (200, "1024000")
            etag = response.headers["ETag"]
        async with client.get(rig.url + "/f", headers={"If-None-Match": etag}) as response:
            assert (response.status, await response.read()) == (304, b"")
        async with client.get(rig.url + "/204") as response:
            assert (response.status, await response.read()) == (204, b"")
            assert "Transfer-Encoding" not in response.headers
        async with client.get(rig.url + "/f", headers={"Range": "bytes=254-257"}) as response:
            assert (response.status, await response.read()) == (206, b"\xfe\xff\x00\x01")
            assert response.headers["Content-Range"] == "bytes 254-257/1024000"
        async with client.get(rig.url + "/f") as response:
            assert await response.read() == file.read_bytes()


async def test_304_that_names_the_length_of_what_it_does_not_send(rig: Rig) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: x\r\n\r\n")
        await reader.read()

    async with rig.serving_raw(handler), browser() as client, client.get(rig.url + "/") as response:
        assert (response.status, await response.read()) == (304, b"")


async def test_redirects_go_to_the_browser(rig: Rig) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://169.254.169.254/latest"})

    rig.handler = handler
    async with browser() as client, client.get(rig.url + "/", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, "http://169.254.169.254/latest")


async def test_thousand_requests_leave_no_file_open(rig: Rig) -> None:
    rig.handler = echo
    async with browser() as client:
        before = 0
        for number in range(1000):
            async with client.get(f"{rig.url}/{number}") as response:
                assert response.status == 200
                await response.read()
            before = before or open_files()
        await rig.settled()
        assert open_files() == before
    assert rig.statuses == [200] * 1000


async def test_dropping_an_upstream_closes_its_connections(rig: Rig) -> None:
    rig.handler = echo
    async with browser() as client:
        for _ in range(2):
            async with client.get(rig.url) as response:
                await response.read()
            assert len(rig.upstreams) == 1
            session = rig.upstreams.client(rig.upstream)
            before = open_files()
            await rig.upstreams.drop(rig.upstream.key)
            assert session.closed and len(rig.upstreams) == 0
            async with asyncio.timeout(WAIT_S):
                while open_files() >= before:
                    await asyncio.sleep(0)
    await rig.upstreams.drop("unknown")


async def test_bad_methods_are_refused(rig: Rig) -> None:
    rig.handler = echo
    answer = await rig.exchange(b"TRACE / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 405")


async def test_non_ascii_header_values_arrive(rig: Rig) -> None:
    rig.handler = echo
    for sent, arrives in (("é".encode(), b"\\u00e9"), (b"\xe9", b"\\udce9")):  # aiohttp's way to show a lone byte
        request = b"GET / HTTP/1.1\r\nHost: h\r\nX-Name: " + sent + b"\r\nConnection: close\r\n\r\n"
        assert b'["x-name", "' + arrives + b'"]' in await rig.exchange(request)
