"""A session host that is slow, silent, absent or mad: every call ends in time with one of our errors."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from proxy.base.errors import Unavailable
from tests.user_sessions.studio import make_settings, make_spec
from user_sessions.run_dir import host_socket, run_dir
from user_sessions.spawner import HostGone, HostSpawner

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def never(_request: web.Request) -> web.StreamResponse:
    """Does not answer while anybody listens."""
    await asyncio.Event().wait()
    raise AssertionError


async def garbage(_request: web.Request) -> web.StreamResponse:
    """No JSON at all."""
    return web.Response(text="<html>no</html>")


async def strange(_request: web.Request) -> web.StreamResponse:
    """JSON of another shape."""
    return web.json_response({"sessions": [{"state": "sleeping"}], "state": "sleeping"})


async def listless(_request: web.Request) -> web.StreamResponse:
    """JSON, but not an object."""
    return web.json_response([1, 2])


async def failing(_request: web.Request) -> web.StreamResponse:
    """An error without our shape."""
    return web.json_response({"error": "no"}, status=500)


async def hanging_up(request: web.Request) -> web.StreamResponse:
    """Closes the connection instead of answering."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@asynccontextmanager
async def host(run: Path, handler: Handler) -> AsyncIterator[None]:
    """A mad host on the control socket."""
    host_socket(run).with_suffix(".token").write_text("token")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(host_socket(run))).start()
    try:
        yield
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("handler", [never, garbage, strange, listless, failing, hanging_up])
async def test_each_madness(place: Path, handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("user_sessions.spawner.MARGIN_S", 0.0)
    settings = make_settings(place)
    run = run_dir(settings)
    spawner = HostSpawner(run, 0.3, 0.3, call_timeout_s=0.3)
    try:
        async with host(run, handler):
            with pytest.raises(Unavailable):
                await spawner.start(make_spec(settings, "ann"))
            assert (await spawner.poll("a")).state == "unknown"
            with pytest.raises(Unavailable):
                await spawner.listing()
            if handler is not strange:  # an object with status 200 is all a stop needs
                with pytest.raises(Unavailable):
                    await spawner.stop("a")
    finally:
        await spawner.close()


async def test_an_absent_host_is_revived_once_and_only_then(place: Path) -> None:
    run = run_dir(make_settings(place))
    revived: list[int] = []

    async def revive() -> None:
        revived.append(1)

    spawner = HostSpawner(run, 1, 1, revive=revive, call_timeout_s=0.3)
    try:
        with pytest.raises(HostGone):
            await spawner.listing()
        assert revived == [1]
        assert (await spawner.poll("a")).state == "unknown"  # a look starts nothing
        assert revived == [1]
        host_socket(run).with_suffix(".token").write_text("token")
        async with host(run, never):
            with pytest.raises(Unavailable):
                await spawner.listing()
        assert revived == [1]  # one that hangs is not absent
    finally:
        await spawner.close()
