"""Uploads and /view: names, statuses, Range and re-encoding."""

import io
import json
import uuid

import aiohttp
import pytest
from PIL import Image

from tests.contract import graphs
from tests.contract.wire import Comfy


def picture(color: int, mode: str = "RGB") -> bytes:
    """A PNG unlike that of any other colour."""
    data = io.BytesIO()
    Image.new(mode, (8, 6), (color % 256, color // 256, 9, 128)[: len(mode)]).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
async def uploaded(comfy: Comfy) -> str:
    """The name of a fresh picture with an alpha channel in the input directory."""
    answer = await comfy.upload(f"{uuid.uuid4().hex}.png", picture(300, "RGBA"))
    return str(answer.json()["name"])


async def test_equal_content_keeps_its_name_and_another_gets_a_number(comfy: Comfy) -> None:
    stem = uuid.uuid4().hex
    names = [(await comfy.upload(f"{stem}.png", picture(color))).json() for color in (1, 1, 2, 2, 1, 3)]
    assert [answer["name"] for answer in names] == [
        f"{stem}.png", f"{stem}.png", f"{stem} (1).png", f"{stem} (1).png", f"{stem}.png", f"{stem} (2).png",
    ]  # fmt: skip
    assert names[0] == {"name": f"{stem}.png", "subfolder": "", "type": "input"}


async def test_names_that_are_not_plain(comfy: Comfy) -> None:
    name = f"ein Bild, größer 图 {uuid.uuid4().hex}.png"
    assert (await comfy.upload(name, picture(7))).json()["name"] == name
    assert (await comfy.get("/view", params={"filename": name, "type": "input"})).body == picture(7)


async def test_overwriting(comfy: Comfy) -> None:
    name = f"{uuid.uuid4().hex}.png"
    await comfy.upload(name, picture(1))
    assert (await comfy.upload(name, picture(2), overwrite="true")).json()["name"] == name
    assert (await comfy.get(f"/view?filename={name}&type=input")).body == picture(2)


@pytest.mark.parametrize("place", ["input", "temp", "output"])
async def test_uploads_by_type_and_subfolder(comfy: Comfy, place: str) -> None:
    name = f"{uuid.uuid4().hex}.png"
    answer = (await comfy.upload(name, picture(4), type=place, subfolder="a/b")).json()
    assert answer == {"name": name, "subfolder": "a/b", "type": place}
    viewed = await comfy.get("/view", params={"filename": name, "subfolder": "a/b", "type": place})
    assert (viewed.status, viewed.body) == (200, picture(4))


async def test_uploads_that_are_refused(comfy: Comfy) -> None:
    assert (await comfy.upload("x.png", picture(5), subfolder="../../x")).status == 400
    assert (await comfy.call("POST", "/upload/image", data={"x": "y"})).status == 400


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 404),
        ("filename=nope.png", 404),
        ("filename=../x.png", 400),
        ("filename=/etc/passwd", 400),
        ("filename=x.png&type=bogus", 400),
        ("filename=x.png&subfolder=../..", 403),
    ],
)
async def test_views_that_are_refused(comfy: Comfy, query: str, status: int) -> None:
    assert (await comfy.get(f"/view?{query}")).status == status


async def test_a_view_of_a_result(comfy: Comfy) -> None:
    async with comfy.socket("viewer") as socket:
        prompt_id = await comfy.submit(graphs.saved(9001, "view/er"), "viewer")
        await socket.job(prompt_id)
    (image,) = (await comfy.history(prompt_id))["outputs"]["2"]["images"]
    assert (image["subfolder"], image["type"]) == ("view", "output")
    assert image["filename"].startswith("er_0000")
    answer = await comfy.get("/view", params={**image, "rand": "0.5"})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"] == f'filename="{image["filename"]}"'
    saved = Image.open(io.BytesIO(answer.body))
    assert saved.getpixel((0, 0)) == (0, 9001 // 256, 9001 % 256)
    assert isinstance(saved, Image.Image)
    assert '"EmptyImage"' in saved.info["prompt"]


async def test_ranges_and_validators(comfy: Comfy, uploaded: str) -> None:
    path = f"/view?filename={uploaded}&type=input"
    whole = await comfy.get(path)
    part = await comfy.get(path, headers={"Range": "bytes=2-9"})
    assert (part.status, part.body) == (206, whole.body[2:10])
    assert part.headers["Content-Range"] == f"bytes 2-9/{len(whole.body)}"
    beyond = await comfy.get(path, headers={"Range": f"bytes={len(whole.body)}-"})
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(whole.body)}")
    same = await comfy.get(path, headers={"If-None-Match": whole.headers["ETag"]})
    assert (same.status, same.body) == (304, b"")
    head = await comfy.call("HEAD", path)
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(whole.body)))
    assert head.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(("preview", "kind"), [("webp;50", "WEBP"), ("jpeg;80", "JPEG"), ("nonsense", "WEBP")])
async def test_previews_are_encoded_again(comfy: Comfy, uploaded: str, preview: str, kind: str) -> None:
    answer = await comfy.get("/view", params={"filename": uploaded, "type": "input", "preview": preview})
    assert (answer.status, answer.headers["Content-Type"]) == (200, f"image/{kind.lower()}")
    assert Image.open(io.BytesIO(answer.body)).format == kind


async def test_channels(comfy: Comfy, uploaded: str) -> None:
    modes = {}
    for channel in ("rgb", "a", "rgba"):
        answer = await comfy.get("/view", params={"filename": uploaded, "type": "input", "channel": channel})
        modes[channel] = (answer.status, Image.open(io.BytesIO(answer.body)).mode)
    assert modes == {"rgb": (200, "RGB"), "a": (200, "RGBA"), "rgba": (200, "RGBA")}


async def test_an_annotated_name_loads_from_another_directory(comfy: Comfy) -> None:
    name = f"{uuid.uuid4().hex}.png"
    await comfy.upload(name, picture(6), type="output")
    prompt = graphs.chain(graphs.node("LoadImage", image=f"{name} [output]"), "annotated")
    async with comfy.socket("annotated") as socket:
        frames = await socket.job(await comfy.submit(prompt, "annotated"))
    assert frames[-2].kind == "execution_success"


async def test_a_mask_gives_its_alpha_to_a_copy_of_the_original(comfy: Comfy, uploaded: str) -> None:
    ref = {"filename": uploaded, "subfolder": "", "type": "input"}
    name = f"mask {uuid.uuid4().hex}.png"
    fields = {"subfolder": "clipspace", "type": "input", "original_ref": json.dumps(ref)}
    mask = aiohttp.FormData(fields, quote_fields=False)
    hole = io.BytesIO()
    Image.new("RGBA", (8, 6), (0, 0, 0, 17)).save(hole, "PNG")
    mask.add_field("image", hole.getvalue(), filename=name, content_type="image/png")
    answer = await comfy.call("POST", "/upload/mask", data=mask)
    assert answer.json() == {"name": name, "subfolder": "clipspace", "type": "input"}
    merged = await comfy.get("/view", params={"filename": name, "subfolder": "clipspace", "type": "input"})
    assert Image.open(io.BytesIO(merged.body)).getpixel((3, 3)) == (44, 1, 9, 17)
