"""Nobody sees or touches what is somebody else's, by any route; and nothing leads out of one's own directories."""

import io
import json
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from tests.contract import graphs
from tests.contract.wire import FLAGS
from tests.system.people import Someone, endless, painting, until_idle

OWN_LISTS = (
    "/queue", "/history", "/api/jobs", "/object_info", "/object_info/LoadImage", "/object_info/LoadImageOutput",
    "/internal/files/input", "/internal/files/output", "/internal/files/temp", "/userdata?dir=workflows&recurse=true",
    "/v2/userdata?path=workflows", "/settings", "/cluster/api/v1/jobs", "/cluster/api/v1/pictures", "/cluster/",
    "/cluster/gallery", "/internal/logs", "/internal/logs/raw", "/system_stats",
)  # fmt: skip


def png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(data, "PNG")
    return data.getvalue()


async def test_nothing_of_one_user_is_in_any_list_of_another(ann: Someone, ben: Someone) -> None:
    mark = f"mark{uuid.uuid4().hex}"
    await ann.comfy.upload(f"{mark}.png", png())
    await ann.comfy.call("POST", f"/userdata/workflows%2F{mark}.json", data=b"{}")
    await ann.comfy.post(f"/settings/{mark}", True)
    finished = await ann.runs(painting(1, prefix=mark))
    running = await ann.comfy.submit(endless(2), mark, extra_data={"extra_pnginfo": {"workflow": {"id": mark}}})
    for path in OWN_LISTS:
        answer = await ben.comfy.get(path)
        assert answer.status == 200, path
        told = answer.body.decode()
        assert not [secret for secret in (mark, finished, running) if secret in told], path
    assert mark in (await ann.comfy.get("/object_info/LoadImage")).body.decode()
    assert mark in (await ann.comfy.get("/cluster/gallery")).body.decode()


async def test_anothers_ids_lead_nowhere(ann: Someone, ben: Someone) -> None:
    finished = await ann.runs(painting(3))
    running = await ann.comfy.submit(endless(4), "ann")
    waiting = await ann.comfy.submit(painting(5), "ann")
    every = [finished, running, waiting]
    for prompt_id in every:
        assert (await ben.comfy.get(f"/history/{prompt_id}")).json() == {}
        assert (await ben.comfy.get(f"/api/jobs/{prompt_id}")).status == 404
        assert (await ben.comfy.post(f"/api/jobs/{prompt_id}/cancel")).json() == {"cancelled": False}
        await ben.comfy.post("/interrupt", {"prompt_id": prompt_id})
    await ben.comfy.post("/interrupt")
    await ben.comfy.post("/free", {"unload_models": True, "free_memory": True})
    await ben.comfy.post("/queue", {"delete": every})
    await ben.comfy.post("/queue", {"clear": True})
    await ben.comfy.post("/history", {"delete": every})
    await ben.comfy.post("/history", {"clear": True})
    assert (await ben.comfy.post("/api/jobs/cancel", {"job_ids": every})).json() == {"cancelled": False}
    for job in (await ann.comfy.get("/cluster/api/v1/jobs")).json()["jobs"]:
        assert (await ben.comfy.post(f"/cluster/api/v1/jobs/{job['id']}/cancel")).status == 404
    await ben.runs(painting(6))  # whatever was asked for has had its effect by now
    assert await ann.ids() == ([running], [waiting], [finished])
    states = [(await ann.job(prompt_id))["status"] for prompt_id in every]
    assert states == ["completed", "in_progress", "pending"]


async def test_anothers_pictures_cannot_be_viewed(ann: Someone, ben: Someone) -> None:
    prompt_id = await ann.runs(graphs.two_outputs(graphs.empty_image(7)))
    upload = (await ann.comfy.upload("hers.png", png())).json()
    outputs = (await ann.comfy.history(prompt_id))["outputs"]
    files = [*outputs["4"]["images"], *outputs["5"]["images"], {"filename": upload["name"], "type": "input"}]
    assert [(await ann.comfy.get("/view", params=file)).status for file in files] == [200] * 3
    for file in files:
        assert (await ben.comfy.get("/view", params=file)).status == 404
        up = f"../../../{ann.person.slug}/{file['type']}"
        for subfolder in (up, f"x/../{up}", str(ann.folder / file["type"])):
            assert (await ben.comfy.get("/view", params={**file, "subfolder": subfolder})).status in (400, 403, 404)
        path = ann.folder / file["type"] / file["filename"]
        assert (await ben.comfy.get("/view", params={"filename": str(path)})).status in (400, 404)


async def test_anothers_files_cannot_be_loaded_by_a_prompt(ann: Someone, ben: Someone) -> None:
    await ann.comfy.upload("loaded.png", png())
    hers = ann.folder / "input" / "loaded.png"
    names = [
        "loaded.png",
        str(hers),
        f"../../{ann.person.slug}/input/loaded.png",
        f"../../{ann.person.slug}/input/loaded.png [input]",
    ]
    for name in names:
        prompt = graphs.chain(graphs.node("LoadImage", image=name))
        answer = await ben.comfy.post("/prompt", {"prompt": prompt})
        assert answer.status == 400, name
        (error,) = answer.json()["node_errors"]["1"]["errors"]
        assert error["type"] == "custom_validation_failed"


async def test_a_job_is_heard_by_its_owner_alone(ann: Someone, ben: Someone) -> None:
    """The same clientId, even the same prompt_id: events go by user first."""
    async with ben.comfy.socket("same", FLAGS) as his, ann.comfy.socket("same", FLAGS) as hers:
        prompt_id = await ann.comfy.submit(painting(8, steps=3), "same", prompt_id="same-id")
        await hers.job(prompt_id)
        broadcast = await ann.comfy.post("/prompt", {"prompt": painting(9, steps=3)})  # without a client_id
        await hers.job(broadcast.json()["prompt_id"])
        await his.job(await ben.comfy.submit(graphs.saved(10), "same"))
    heard = {frame.data["prompt_id"] for frame in his.frames if "prompt_id" in frame.data}
    assert prompt_id not in heard
    assert len(heard) == 1
    assert not [frame for frame in his.frames if frame.kind.startswith("binary")]


async def test_equal_prompts_of_two_users_give_each_a_file_of_their_own(ann: Someone, ben: Someone) -> None:
    """One backend serves the second from its cache; each must still get a picture, under their own counter."""
    prompt = painting(11, prefix="equal")
    hers, his = await ann.runs(prompt), await ben.runs(prompt)
    again = await ben.runs(prompt)
    assert await ann.picture(hers) == await ben.picture(his) == await ben.picture(again)
    assert [path.name for path in ann.files()] == ["equal_00001_.png"]
    assert {path.name for path in ben.files()} <= {"equal_00001_.png", "equal_00002_.png"}
    ((image,),) = [ui["images"] for ui in (await ben.comfy.history(his))["outputs"].values()]
    assert image == {"filename": "equal_00001_.png", "subfolder": "", "type": "output"}


ESCAPES = ("../x", "..", "/etc", "a/../../x", "..\\x", "a\\..\\..\\x", "\0", "~root/../..", "./../x")


@pytest.mark.parametrize("escape", ESCAPES)
async def test_no_path_leads_out(ann: Someone, escape: str) -> None:
    await ann.comfy.get("/settings")  # the session is there and has made its directories
    before = outside(ann)
    for kind in ("input", "output", "temp"):
        answer = await ann.comfy.upload("up.png", png(), subfolder=escape, type=kind)
        assert answer.status < 500
        viewed = await ann.comfy.get("/view", params={"filename": "up.png", "subfolder": escape, "type": kind})
        assert viewed.status < 500
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("image", png(), filename=f"{escape}/name.png".replace("\0", "%00"), content_type="image/png")
    assert (await ann.comfy.call("POST", "/upload/image", data=form)).status < 500
    for target in (f"{escape}/x.json", f"workflows/{escape}/x.json"):
        quoted = "".join(f"%{byte:02X}" for byte in target.encode())
        for method in ("GET", "POST", "DELETE"):
            assert (await ann.comfy.call(method, f"/userdata/{quoted}", data=b"{}")).status < 500
        assert (await ann.comfy.call("POST", f"/userdata/a.json/move/{quoted}")).status < 500
    assert (await ann.comfy.get("/userdata", params={"dir": escape})).status < 500
    saved = await ann.comfy.post("/prompt", {"prompt": graphs.saved(12, f"{escape}/pre")})
    assert saved.status < 500
    if saved.status == 200:
        async with ann.comfy.socket("escape") as socket:
            await until_idle(socket)
    assert outside(ann) == before


async def test_a_link_out_of_the_directories_is_not_followed(ann: Someone) -> None:
    await ann.runs(graphs.saved(13))
    secret = ann.folder.parent.parent / "secret.key"
    for kind in ("input", "output"):
        (ann.folder / kind / "link.png").symlink_to(secret)
        (ann.folder / kind / "away").symlink_to(secret.parent)
        for query in ({"filename": "link.png"}, {"filename": "secret.key", "subfolder": "away"}):
            answer = await ann.comfy.get("/view", params={**query, "type": kind})
            assert answer.status in (400, 403, 404)
            assert secret.read_bytes() not in answer.body
    prompt = graphs.chain(graphs.node("LoadImage", image="link.png"))
    assert (await ann.comfy.post("/prompt", {"prompt": prompt})).status == 400


async def test_no_machine_shows_through(ann: Someone) -> None:
    """Paths of this machine, addresses of backends and their folder names are nobody's business."""
    prompt_id = await ann.runs(graphs.two_outputs(graphs.empty_image(14)))
    base = str(ann.cluster.data_dir)
    paths = ["/system_stats", "/object_info", "/history", f"/api/jobs/{prompt_id}", "/experiment/models", "/queue"]
    for path in paths:
        told = (await ann.comfy.get(path)).body.decode()
        assert base not in told, path
        assert "127.0.0.1" not in told, path
    assert json.loads((await ann.comfy.get("/system_stats")).body)["system"]["argv"] == []


async def test_other_sites_pages_can_do_nothing_with_a_login(ann: Someone) -> None:
    """A cookie comes with every request of a browser, whoever's page made it."""
    jar = aiohttp.CookieJar(unsafe=True)
    form = {"username": ann.person.name, "password": ann.person.password}
    async with aiohttp.ClientSession(ann.cluster.url, cookie_jar=jar) as http:
        async with http.post("/cluster/login", data=form, headers={"Origin": ann.cluster.url}) as signed_in:
            assert signed_in.status == 200
        evil = {"Origin": "https://evil.example"}
        prompt: dict[str, Any] = {"json": {"prompt": graphs.saved(15)}}
        for path in ("/prompt", "/api/queue", "/api/interrupt", "/api/settings/x", "/cluster/api/v1/session/stop"):
            async with http.post(path, headers=evil, **prompt) as answer:
                assert answer.status == 403, path
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect("/ws", headers=evil)
        assert refused.value.status == 403
        async with http.post("/prompt", headers={"Origin": ann.cluster.url}, **prompt) as answer:
            assert answer.status == 200


def outside(someone: Someone) -> set[Path]:
    """Files beside the user's own, as far as anything could be written there by mistake."""
    data = someone.cluster.data_dir
    found = {path for path in data.rglob("*") if path.is_file() and not path.is_relative_to(someone.folder)}
    own = {path for path in someone.folder.iterdir() if path.name not in ("input", "output", "temp", "user")}
    engines = data / "engines"
    logs = data / "logs"
    return {path for path in found | own if not path.is_relative_to(engines) and not path.is_relative_to(logs)}
