"""Sessions forked from an imported ComfyUI (its stand-in): whose directories, whose log, and what is refused."""

import json
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from tests.user_sessions.comfyui.double import add_pack, make_double
from tests.user_sessions.comfyui.studio import answer, double_studio
from tests.user_sessions.studio import refreshed, until
from tests.user_sessions.test_light_end_to_end import fetch
from user_sessions.live import Address
from user_sessions.runtime import SECRET_HEADER

WITH_ROUTE = """
import folder_paths
from aiohttp import web
from server import PromptServer
WEB_DIRECTORY = "web"
COPIED = folder_paths.get_output_directory()
@PromptServer.instance.routes.get("/pack")
async def pack(request):
    return web.json_response(COPIED)
@PromptServer.instance.routes.get("/bad-message")
async def bad(request):
    PromptServer.instance.send_sync("odd", object())
    return web.json_response({})
"""


async def test_two_people_each_have_their_own(place: Path) -> None:
    async with double_studio(place) as studio:
        ann, bob = await studio.sessions.ensure(1, "ann"), await studio.sessions.ensure(2, "bob")
        assert (await fetch(ann, "GET", "/", secret=bob.secret))[0] == 403
        assert (await fetch(ann, "GET", "/nothing", secret="x"))[0] == 403
        assert (await fetch(ann, "POST", "/upload", data=b"a photograph of ann"))[0] == 200
        assert await fetch(ann, "GET", "/api/upload") == (200, b"a photograph of ann")
        assert (await fetch(bob, "GET", "/upload"))[0] == 404

        told = await answer(ann, "/folders")
        home = studio.settings.data_dir / "users" / "ann"
        assert told["directories"] == {name: str(home / name) for name in ("input", "output", "temp", "user")}
        assert str(home / "output" / "checkpoints") in told["checkpoints"]
        assert str(studio.settings.data_dir / "public" / "models" / "checkpoints") in told["checkpoints"]
        assert not [path for path in told["checkpoints"] if "cache" in Path(path).parts]
        assert told["database"] == f"sqlite:///{home}/user/comfyui.db"
        assert (home / "user" / "comfyui.db").read_text() == "set up once\n"
        assert told["limit"] == studio.settings.max_upload_mb
        assert (await answer(ann, "/settings"))["Comfy.TutorialCompleted"] is True

        again = await studio.sessions.restart(1, "ann")
        assert await fetch(again, "GET", "/upload") == (200, b"a photograph of ann")
        assert (await fetch(again, "GET", "/upload", secret=ann.secret))[0] == 403


async def test_neither_prompts_nor_what_came_before_reach_a_session(place: Path) -> None:
    double = make_double(place / "ComfyUI")
    add_pack(double / "custom_nodes", "chatty", "import logging\nlogging.warning('said before the fork')")
    preview = place / "data/users/ann/temp/preview.png"
    preview.parent.mkdir(parents=True)
    preview.write_bytes(b"shown by the history")
    async with double_studio(place, double) as studio:
        ann = await studio.sessions.ensure(1, "ann")
        for path in ("/prompt", "/api/prompt"):
            status, body = await fetch(ann, "POST", path, json={"prompt": {}})
            assert status == 403
            assert json.loads(body)["error"]["type"] == "prompt_refused" and json.loads(body)["node_errors"] == {}
        assert (await answer(ann, "/folders"))["queue"] == 0
        lines = "".join(entry["m"] for entry in await answer(ann, "/logs"))
        assert "session ready" in lines and "said before the fork" not in lines and ann.secret not in lines
    host_log = (studio.settings.data_dir / "logs" / "session-host.log").read_text()
    assert "said before the fork" in host_log and "A PROMPT WAS RUN" not in host_log
    assert preview.exists()
    assert not (double / "install.db").exists()
    assert sorted(path.name for path in (double / "input").iterdir()) == ["private.txt"]


async def test_shared_packs_bring_routes_and_scripts(place: Path) -> None:
    double = make_double(place / "ComfyUI")
    pack = add_pack(place / "data" / "public" / "custom_nodes", "mine", WITH_ROUTE)
    (pack / "web").mkdir()
    (pack / "web" / "mine.js").write_text("export default 1")
    async with double_studio(place, double) as studio:
        ann, bob = await studio.sessions.ensure(1, "ann"), await studio.sessions.ensure(2, "bob")
        assert await fetch(ann, "GET", "/extensions/mine/mine.js") == (200, b"export default 1")
        for address, user in ((ann, "ann"), (bob, "bob")):  # a directory it copied at its import is each user's
            assert await answer(address, "/api/pack") == str(studio.settings.data_dir / "users" / user / "output")
        await answer(ann, "/bad-message")
        assert await answer(ann, "/pack")  # what cannot be sent does not end the session

        (pack / "__init__.py").write_text(WITH_ROUTE.replace('"/pack"', '"/newer"'))
        assert (await refreshed(studio.spawner)).state == "done"
        assert (await fetch(ann, "GET", "/newer"))[0] == 404
        assert await answer(await studio.sessions.restart(1, "ann"), "/newer")


async def test_the_frontend_goes_out_compressed_and_is_kept(place: Path) -> None:
    async with double_studio(place) as studio:
        ann = await studio.sessions.ensure(1, "ann")
        path = "/assets/app-12345678.js"

        async def packed() -> bool:
            headers = await headers_of(ann, path)
            assert "immutable" in headers["Cache-Control"]
            return headers.get("Content-Encoding") == "gzip"

        await until(packed)  # in the background, by a process of its own
        assert b"double" in (await fetch(ann, "GET", "/"))[1]  # pages are ComfyUI's
        assert (await fetch(ann, "GET", path, secret="x"))[0] == 403
        assert (await fetch(ann, "GET", "/assets/%2e%2e/index.html"))[0] == 404


async def headers_of(address: Address, path: str) -> Mapping[str, str]:
    """The headers of an answer to a browser."""
    headers = {SECRET_HEADER: address.secret, "Accept-Encoding": "gzip"}
    connector = aiohttp.UnixConnector(str(address.socket))
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as client,
        client.get(f"http://session{path}") as response,
    ):
        assert response.status == 200
        return response.headers


async def test_a_users_own_packs_are_theirs_alone(place: Path) -> None:
    double = make_double(place / "ComfyUI")
    own = place / "data/users/ann/custom_nodes"
    add_pack(own, "mine", WITH_ROUTE + "\nNODE_CLASS_MAPPINGS = {'AnnsNode': object}")
    add_pack(own, "rude", "import sys; sys.exit('bye')")
    async with double_studio(place, double, user_custom_nodes=True) as studio:
        ann, bob = await studio.sessions.ensure(1, "ann"), await studio.sessions.ensure(2, "bob")
        assert await answer(ann, "/pack") == str(place / "data/users/ann/output")
        assert "AnnsNode" in (await answer(ann, "/folders"))["nodes"]
        assert "a pack did not load" in "".join(entry["m"] for entry in await answer(ann, "/logs"))
        assert (await fetch(bob, "GET", "/pack"))[0] == 404
        assert "AnnsNode" not in (await answer(bob, "/folders"))["nodes"]
        assert (await studio.spawner.report()).failed_nodes == ()
