"""The light runtime under the real host and controller, sandbox on: a user's files are theirs, through a restart."""

from pathlib import Path
from typing import Any

import aiohttp

from tests.user_sessions.studio import open_studio
from user_sessions.live import Address
from user_sessions.runtime import SECRET_HEADER


async def fetch(address: Address, method: str, path: str, secret: str | None = None, **more: Any) -> tuple[int, bytes]:
    """One request to a session."""
    headers = {SECRET_HEADER: address.secret if secret is None else secret}
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(address.socket)), headers=headers) as client,
        client.request(method, f"http://session{path}", **more) as response,
    ):
        return response.status, await response.read()


async def test_two_people_work_side_by_side(place: Path) -> None:
    async with open_studio(place, "light") as studio:
        ann, bob = await studio.sessions.ensure(1, "ann"), await studio.sessions.ensure(2, "bob")
        assert (await fetch(ann, "GET", "/"))[0] == 200
        assert (await fetch(ann, "GET", "/", secret=bob.secret))[0] == 403

        form = aiohttp.FormData()
        form.add_field("image", b"a photograph of ann", filename="me.png", content_type="image/png")
        assert (await fetch(ann, "POST", "/upload/image", data=form))[0] == 200
        view = "/view?filename=me.png&type=input"
        assert await fetch(ann, "GET", view) == (200, b"a photograph of ann")
        assert (await fetch(bob, "GET", view))[0] == 404
        assert (await fetch(ann, "POST", "/api/userdata/workflows%2Fmine.json", data=b"{}"))[0] == 200

        again = await studio.sessions.restart(1, "ann")
        assert again.secret != ann.secret
        assert await fetch(again, "GET", view) == (200, b"a photograph of ann")
        assert await fetch(again, "GET", "/api/userdata/workflows%2Fmine.json") == (200, b"{}")
        assert (await fetch(again, "GET", view, secret=ann.secret))[0] == 403
