"""A relay whose session ends under it: what is asked once more of the next one, and what is not."""

from pathlib import Path

import pytest
from aiohttp import web

from proxy.base.settings import Settings
from proxy.forward.upstreams import Upstream
from tests.proxy.forward.rig import Rig, browser, running


class Death:
    """A session that ends without an answer, and the one that follows it. Counts what each was asked."""

    def __init__(self, rig: Rig, *, gone: bool) -> None:
        self.rig = rig
        self.gone = gone
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.replaced = 0
        rig.handler = self.dies
        rig.again = self.again

    async def dies(self, request: web.Request) -> web.StreamResponse:
        """Read the request, say nothing."""
        self.asked.append(request.method)
        await request.read()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def lives(self, request: web.Request) -> web.Response:
        """The next session."""
        self.asked.append(f"{request.method} again")
        self.bodies.append(await request.read())
        return web.Response(text="from the next one")

    async def again(self) -> Upstream | None:
        """As the edge does it: None while the session still runs."""
        self.replaced += 1
        self.rig.handler = self.lives
        old = self.rig.upstream
        return Upstream("two", old.socket, old.base_url, old.headers) if self.gone else None


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_safe_request_is_asked_once_more(tmp_path: Path, method: str) -> None:
    async with running("unix", tmp_path, Settings()) as rig, browser() as client:
        death = Death(rig, gone=True)
        async with client.request(method, f"{rig.url}/view?x=1") as answer:
            assert answer.status == 200
        assert death.asked[-1] == f"{method} again" and death.replaced == 1


async def test_once_only(tmp_path: Path) -> None:
    async with running("unix", tmp_path, Settings()) as rig, browser() as client:
        death = Death(rig, gone=True)
        death.lives = death.dies  # type: ignore[method-assign, assignment]
        async with client.get(rig.url) as answer:
            assert answer.status == 502
        assert death.replaced == 1


@pytest.mark.parametrize(("method", "gone"), [("GET", False), ("POST", True), ("DELETE", True)])
async def test_what_may_have_been_done_is_not(tmp_path: Path, method: str, gone: bool) -> None:
    async with running("unix", tmp_path, Settings()) as rig, browser() as client:
        death = Death(rig, gone=gone)
        async with client.request(method, rig.url, data=b"save" if method == "POST" else None) as answer:
            assert answer.status == 502
        assert not any(word.endswith("again") for word in death.asked)


@pytest.mark.parametrize("body", [None, b"save me" * 1000])
async def test_what_was_never_sent_is_sent_with_its_body(tmp_path: Path, body: bytes | None) -> None:
    async with running("unix", tmp_path, Settings()) as rig, browser() as client:
        death = Death(rig, gone=True)
        await rig.upstreams.http(rig.upstream).close()  # as when the session is stopped while the request comes in
        async with client.post(rig.url, data=body) as answer:
            assert (answer.status, await answer.text()) == (200, "from the next one")
        assert (death.asked, death.bodies) == (["POST again"], [body or b""])
