"""Sessions of a real ComfyUI: COMFYUI_DIR, and COMFYUI_OLD_DIR where it names an older one beside it."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.real_comfyui import WHY_SKIPPED, configured
from tests.user_sessions.comfyui.double import add_pack
from tests.user_sessions.comfyui.studio import answer
from tests.user_sessions.studio import Studio, open_studio, short_directory
from tests.user_sessions.test_light_end_to_end import fetch
from user_sessions.live import Address

pytestmark = [pytest.mark.comfyui, pytest.mark.slow, pytest.mark.timeout(600)]

VERSIONS = ["COMFYUI_DIR", *(["COMFYUI_OLD_DIR"] if os.environ.get("COMFYUI_OLD_DIR") else [])]
PACK = """
import folder_paths, logging, os, threading
from aiohttp import web
from server import PromptServer
WEB_DIRECTORY = "./web"
NODE_CLASS_MAPPINGS = {}
CAPTURED = folder_paths.get_user_directory()
@PromptServer.instance.routes.get("/studio_pack/where")
async def where(request):
    return web.json_response([CAPTURED, folder_paths.get_user_directory(), os.environ.get("CUDA_VISIBLE_DEVICES")])
"""
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003010100c9fe92ef"
    "0000000049454e44ae426082"
)


@pytest.fixture(params=VERSIONS)
async def real(request: pytest.FixtureRequest) -> AsyncIterator[Studio]:
    """A studio whose sessions run it, with two shared packs: a good one, and one that ends the process."""
    if not configured():
        pytest.skip(WHY_SKIPPED)
    with short_directory() as place:
        shared = place / "data" / "public" / "custom_nodes"
        pack = add_pack(shared, "studio_pack", PACK)
        (pack / "web").mkdir()
        (pack / "web" / "studio.js").write_text("export default 1")
        add_pack(shared, "killer_pack", "import os\nos._exit(3)")
        (place / "data" / "public" / "models" / "loras").mkdir(parents=True)
        (place / "data" / "public" / "models" / "loras" / "house.safetensors").write_bytes(b"")
        own = add_pack(place / "data" / "users" / "ann" / "custom_nodes", "anns_pack", "NODE_CLASS_MAPPINGS = {}")
        (own / "web").mkdir()
        (own / "__init__.py").write_text(PACK.replace("studio_pack", "anns_pack"))
        comfyui, python = Path(os.environ[request.param]), Path(os.environ["COMFYUI_PYTHON"])
        more = {"session_start_timeout_s": 180.0, "user_custom_nodes": True, "log_level": "info"}
        async with open_studio(place, "comfyui", comfyui=comfyui, comfyui_python=python, **more) as studio:
            yield studio


async def test_two_people_in_a_real_comfyui(real: Studio) -> None:
    ann, bob = await real.sessions.ensure(1, "ann"), await real.sessions.ensure(2, "bob")
    home = real.settings.data_dir / "users"
    assert (await fetch(ann, "GET", "/", secret=bob.secret))[0] == 403
    assert b"<html" in (await fetch(ann, "GET", "/"))[1]
    await _files_are_each_ones_own(ann, bob, home)
    await _settings_and_userdata_stay(ann, bob)
    await _packs_are_there(real, ann, bob, home)
    assert (await fetch(ann, "POST", "/api/prompt", json={"prompt": {}}))[0] == 403
    info = await answer(ann, "/api/object_info")
    assert "KSampler" in info and "LoadImage" in info
    assert "anns.png" in json.dumps(info["LoadImage"]) and "bobs.png" not in json.dumps(info["LoadImage"])
    assert "house.safetensors" in json.dumps(info["LoraLoader"])
    for path in ("/api/i18n", "/api/users", "/api/extensions", "/api/workflow_templates", "/docs/KSampler/en.md"):
        assert (await fetch(ann, "GET", path))[0] == 200, path
    assert (await fetch(ann, "GET", "/internal/logs"))[0] == 200
    assert "killer_pack" not in (await fetch(ann, "GET", "/internal/logs"))[1].decode()
    again = await real.sessions.restart(1, "ann")
    assert (await fetch(again, "GET", "/api/view?filename=anns.png&type=input")) == (200, PIXEL)
    assert (await answer(again, "/api/settings"))["Comfy.Locale"] == "de"


async def _files_are_each_ones_own(ann: Address, bob: Address, home: Path) -> None:
    for address, name in ((ann, "anns.png"), (bob, "bobs.png")):
        form = aiohttp.FormData()
        form.add_field("image", PIXEL, filename=name, content_type="image/png")
        status, body = await fetch(address, "POST", "/api/upload/image", data=form)
        assert status == 200 and json.loads(body)["name"] == name
    assert (home / "ann" / "input" / "anns.png").read_bytes() == PIXEL
    assert (await fetch(bob, "GET", "/api/view?filename=anns.png&type=input"))[0] == 404
    assert await answer(ann, "/internal/files/input") == ["anns.png"]
    (home / "ann" / "output" / "mine.png").write_bytes(PIXEL)
    assert (await fetch(ann, "GET", "/view?filename=mine.png"))[0] == 200
    assert (await fetch(bob, "GET", "/view?filename=mine.png"))[0] == 404


async def _settings_and_userdata_stay(ann: Address, bob: Address) -> None:
    assert (await answer(ann, "/api/settings"))["Comfy.TutorialCompleted"] is True
    assert (await fetch(ann, "POST", "/api/settings", json={"Comfy.Locale": "de"}))[0] == 200
    assert "Comfy.Locale" not in await answer(bob, "/api/settings")
    assert (await fetch(ann, "POST", "/api/userdata/workflows%2Fa.json", data=b"{}"))[0] == 200
    assert await answer(ann, "/api/userdata?dir=workflows") == ["a.json"]
    assert await answer(bob, "/api/userdata?dir=workflows") == []


async def _packs_are_there(studio: Studio, ann: Address, bob: Address, home: Path) -> None:
    for address, user in ((ann, "ann"), (bob, "bob")):
        mine = str(home / user / "user")
        assert await answer(address, "/api/studio_pack/where") == [mine, mine, ""]
        assert "/extensions/studio_pack/studio.js" in await answer(address, "/api/extensions")
        assert (await fetch(address, "GET", "/extensions/studio_pack/studio.js"))[0] == 200
    assert (await fetch(ann, "GET", "/anns_pack/where"))[0] == 200
    assert (await fetch(bob, "GET", "/anns_pack/where"))[0] == 404
    assert [node.pack for node in (await studio.spawner.report()).failed_nodes] == ["killer_pack"]
