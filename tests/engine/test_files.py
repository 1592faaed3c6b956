"""/view and /upload: what is served, what is refused, and the names files get."""

import io
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from backend_pool.engine.files import Directories, OutsideDirectory
from tests.engine.client import Client
from tests.engine.graphs import image_graph, node
from tests.engines import Engine


def png(colour: Any = "red", mode: str = "RGB", size: tuple[int, int] = (8, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


def form(content: bytes, name: str = "a.png", **fields: str) -> aiohttp.FormData:
    data = aiohttp.FormData(quote_fields=False)
    data.add_field("image", content, filename=name)
    for key, value in fields.items():
        data.add_field(key, value)
    return data


async def upload(client: Client, content: bytes, name: str = "a.png", **fields: str) -> dict[str, Any]:
    async with client.http.post(f"{client.url}/upload/image", data=form(content, name, **fields)) as response:
        assert response.status == 200
        answer: dict[str, Any] = await response.json()
        return answer


async def view(client: Client, **query: str) -> tuple[int, aiohttp.ClientResponse, bytes]:
    async with client.http.get(f"{client.url}/view", params=query) as response:
        return response.status, response, await response.read()


async def test_same_names_get_numbers_unless_the_content_is_the_same(client: Client) -> None:
    first = await upload(client, png("red"), "pic.png")
    assert first == {"name": "pic.png", "subfolder": "", "type": "input"}
    assert (await upload(client, png("red"), "pic.png"))["name"] == "pic.png"
    assert (await upload(client, png("blue"), "pic.png"))["name"] == "pic (1).png"
    assert (await upload(client, png("blue"), "pic.png"))["name"] == "pic (1).png"
    assert (await upload(client, png("green"), "pic.png", overwrite="true"))["name"] == "pic.png"
    assert (await view(client, filename="pic.png", type="input"))[2] == png("green")


async def test_uploads_into_subfolders_and_types(client: Client, engine: Engine) -> None:
    answer = await upload(client, b"any bytes", "clip.bin", subfolder="a/b", type="temp")
    assert answer == {"name": "clip.bin", "subfolder": "a/b", "type": "temp"}
    assert (engine.base_dir / "temp" / "a" / "b" / "clip.bin").read_bytes() == b"any bytes"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("../up.png", {}),
        ("a.png", {"subfolder": "../.."}),
        ("a.png", {"subfolder": "/etc"}),
        ("a.png", {"type": "nope"}),
    ],
)
async def test_uploads_stay_inside(client: Client, name: str, fields: dict[str, str]) -> None:
    async with client.http.post(f"{client.url}/upload/image", data=form(png(), name, **fields)) as response:
        assert response.status == 400


async def test_absolute_names_stay_inside(client: Client, engine: Engine) -> None:
    answer = await upload(client, png(), "/etc/a.png")
    assert (engine.base_dir / "input" / answer["name"]).is_file()
    assert not Path("/etc/a.png").exists()


async def test_upload_without_a_file(client: Client) -> None:
    async with client.http.post(f"{client.url}/upload/image", data={"type": "input"}) as response:
        assert response.status == 400


async def test_a_mask_becomes_alpha(client: Client, engine: Engine) -> None:
    info = PngInfo()
    info.add_text("prompt", "{}")
    Image.new("RGB", (8, 6), "red").save(engine.base_dir / "output" / "orig.png", pnginfo=info)
    fields = {"original_ref": json.dumps({"filename": "orig.png", "type": "output"}), "subfolder": "clipspace"}
    mask = png((0, 0, 0, 77), "RGBA")
    async with client.http.post(f"{client.url}/upload/mask", data=form(mask, "m.png", **fields)) as response:
        answer = await response.json()
    assert answer == {"name": "m.png", "subfolder": "clipspace", "type": "input"}
    with Image.open(engine.base_dir / "input" / "clipspace" / "m.png") as merged:
        assert merged.getpixel((0, 0)) == (255, 0, 0, 77)
        assert merged.text == {"prompt": "{}"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("reference", "status"),
    [("{", 400), ("[]", 400), ('{"filename": "../x"}', 400), ('{"filename": "x", "subfolder": "../.."}', 403)],
)
async def test_bad_masks(client: Client, reference: str, status: int) -> None:
    data = form(png(), "m.png", original_ref=reference)
    async with client.http.post(f"{client.url}/upload/mask", data=data) as response:
        assert response.status == status


async def test_view_serves_ranges(client: Client) -> None:
    content = png("red", size=(64, 64))
    await upload(client, content, "range.png", overwrite="1")
    query = {"filename": "range.png", "type": "input"}
    status, response, whole = await view(client, **query)
    assert (status, whole, response.content_type) == (200, content, "image/png")
    assert response.headers["Content-Disposition"] == 'filename="range.png"'
    headers = {"Range": "bytes=10-19"}
    async with client.http.get(f"{client.url}/view", params=query, headers=headers) as part:
        assert (part.status, await part.read()) == (206, content[10:20])
        assert part.headers["Content-Range"] == f"bytes 10-19/{len(content)}"
    headers = {"If-None-Match": response.headers["ETag"]}
    async with client.http.get(f"{client.url}/view", params=query, headers=headers) as part:
        assert part.status == 304


async def test_previews_and_channels(client: Client) -> None:
    await upload(client, png((10, 20, 30, 40), "RGBA"), "alpha.png", overwrite="1")
    query = {"filename": "alpha.png [input]"}
    status, response, body = await view(client, **query, preview="webp;50")
    assert (status, response.content_type, Image.open(io.BytesIO(body)).format) == (200, "image/webp", "WEBP")
    _, response, body = await view(client, **query, preview="jpeg;70")
    assert (response.content_type, Image.open(io.BytesIO(body)).mode) == ("image/jpeg", "RGB")
    _, response, _ = await view(client, **query, preview="jpeg", channel="a")
    assert response.content_type == "image/webp"
    _, _, body = await view(client, **query, channel="rgb")
    assert Image.open(io.BytesIO(body)).getpixel((0, 0)) == (10, 20, 30)
    _, _, body = await view(client, **query, channel="a")
    assert Image.open(io.BytesIO(body)).getpixel((0, 0)) == (0, 0, 0, 40)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 404),
        ({"filename": ""}, 400),
        ({"filename": "/etc/passwd"}, 400),
        ({"filename": "../secret"}, 400),
        ({"filename": "x.png", "type": "nope"}, 400),
        ({"filename": "x.png", "subfolder": "../.."}, 403),
        ({"filename": "x.png", "subfolder": "/etc"}, 403),
        ({"filename": "x.png"}, 404),
        ({"filename": "x" * 5000}, 404),
        ({"filename": "a\0b"}, 404),
    ],
)
async def test_view_refuses(client: Client, query: dict[str, str], status: int) -> None:
    assert (await view(client, **query))[0] == status


async def test_pages_and_scripts_are_downloads(client: Client) -> None:
    await upload(client, b"<script>", "page.html")
    assert (await view(client, filename="page.html", type="input"))[1].content_type == "application/octet-stream"
    assert (await view(client, filename="page.html", type="input", preview="webp"))[0] == 400


async def test_links_out_of_a_directory_are_refused(client: Client, engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    (engine.base_dir / "input" / "out").symlink_to(tmp_path)
    assert (await view(client, filename="secret.png", type="input", subfolder="out"))[0] == 403
    prompt = {"1": node("LoadImage", image="out/secret.png"), "2": node("PreviewImage", images=["1", 0])}
    status, body = await client.post("/prompt", {"prompt": prompt})
    assert status == 400
    assert body["node_errors"]["1"]["errors"][0]["details"] == "image - Invalid image file: out/secret.png"


async def test_saved_names_count_up_and_expand_tokens(client: Client) -> None:
    async def name(prefix: str, colour: int) -> dict[str, str]:
        entry, _ = await client.run(image_graph(colour, prefix))
        shown: dict[str, str] = entry["outputs"]["2"]["images"][0]
        return shown

    assert (await name("count", 1))["filename"] == "count_00001_.png"
    assert (await name("count", 2))["filename"] == "count_00002_.png"
    assert (await name("sub/dir/x", 3)) == {"filename": "x_00001_.png", "subfolder": "sub/dir", "type": "output"}
    dated = (await name("%year%-%width%x%height%-%batch_num%", 4))["filename"]
    assert dated == f"{time.localtime().tm_year}-32x24-0_00001_.png"


async def test_saving_outside_is_an_error_of_the_node(client: Client) -> None:
    entry, _ = await client.run(image_graph(5, "../../escape"))
    event, data = entry["status"]["messages"][-1]
    assert event == "execution_error" and data["node_id"] == "2" and "outside" in data["exception_message"]


def test_counters_read_what_is_there(tmp_path: Path) -> None:
    directories = Directories(tmp_path)
    for name in ("P_00007_.png", "p_00009_x.webp", "p_x_.png", "pp_00050_.png", "p"):
        (tmp_path / "output" / name).touch()
    assert directories.save_target("p", "output", 1, 1).counter == 10
    assert directories.save_target("", "output", 1, 1).name == "."
    with pytest.raises(OutsideDirectory):
        directories.save_target("../temp/x", "output", 1, 1)


def test_temp_is_emptied_at_the_start(tmp_path: Path) -> None:
    Directories(tmp_path)
    (tmp_path / "temp" / "old.png").touch()
    (tmp_path / "output" / "kept.png").touch()
    assert Directories(tmp_path).listing("temp") == [] and (tmp_path / "output" / "kept.png").exists()


async def test_a_small_file_of_too_many_pixels_is_not_unfolded(client: Client) -> None:
    await upload(client, png(1, "1", (8001, 8000)), "wide.png")
    for more in ({"preview": "webp;90"}, {"preview": "jpeg"}, {"channel": "rgb"}, {"channel": "a"}):
        status, _, body = await view(client, filename="wide.png", type="input", **more)
        assert (status, json.loads(body)["error"]["type"]) == (413, "too_large")
    image = {"1": node("LoadImage", image="wide.png"), "3": node("PreviewImage", images=["1", 0])}
    mask = {
        "1": node("LoadImageMask", image="wide.png", channel="red"),
        "2": node("MaskToImage", mask=["1", 0]),
        "3": node("PreviewImage", images=["2", 0]),
    }
    for prompt in (image, mask):
        entry, _ = await client.run(prompt)
        event, data = entry["status"]["messages"][-1]
        assert event == "execution_error" and "64 million pixels" in data["exception_message"]


async def test_large_pictures_have_a_smaller_preview(client: Client) -> None:
    await upload(client, png(1, "L", (16400, 1100)), "long.png")
    _, _, body = await view(client, filename="long.png", type="input", preview="jpeg;90")
    with Image.open(io.BytesIO(body)) as picture:
        assert picture.size == (15804, 1060)
