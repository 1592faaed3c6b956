"""`/view`: whose file, which form of it, and what must never come out."""

import struct
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.user_sessions.light.conftest import Running


@pytest.fixture
def placed(session: Running, folder: Path) -> Running:
    """A session with pictures in each area, a public input, and links that lead out."""
    own = session.spec.directories
    Image.new("RGBA", (10, 6), (10, 20, 30, 40)).save(own.output / "out.png")
    (own.output / "sub").mkdir()
    (own.output / "sub/deep.txt").write_text("deep")
    (own.output / "page.html").write_text("<script>alert(1)</script>")
    (own.output / "draw.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (own.output / "code.js").write_text("alert(1)")
    (own.output / "style.css").write_text("a{}")
    (own.output / "odd.unknown-type").write_text("odd")
    (own.output / "clip.mp4").write_bytes(bytes(range(256)) * 40)
    (own.input / "mine.txt").write_text("mine")
    (session.spec.public / "input/mine.txt").write_text("theirs")
    (session.spec.public / "input/shared.txt").write_text("shared")
    (own.temp / "t.txt").write_text("temp")
    (folder / "secret.txt").write_text("root: secret")
    (own.output / "link.txt").symlink_to(folder / "secret.txt")
    (own.output / "folder-link").symlink_to(folder)
    (own.output / "loop").symlink_to(own.output / "loop")
    return session


@pytest.mark.parametrize("prefix", ["", "/api"])
@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"filename": "deep.txt", "subfolder": "sub"}, "deep"),
        ({"filename": "deep.txt", "subfolder": "sub/../sub", "rand": "0.5", "clientId": "x"}, "deep"),
        ({"filename": "mine.txt", "type": "input"}, "mine"),
        ({"filename": "mine.txt [input]"}, "mine"),
        ({"filename": "mine.txt [input]", "type": "output"}, "mine"),
        ({"filename": "shared.txt", "type": "input"}, "shared"),
        ({"filename": "t.txt [temp]"}, "temp"),
        ({"filename": "t.txt", "type": "temp", "subfolder": ""}, "temp"),
    ],
)
async def test_files_by_name(placed: Running, prefix: str, params: dict[str, str], text: str) -> None:
    async with placed.http.get(f"{prefix}/view", params=params) as response:
        assert response.status == 200
        assert await response.text() == text
        assert response.headers["Cache-Control"].startswith("private")
        assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({}, 404),
        ({"filename": ""}, 400),
        ({"filename": "[output]"}, 400),
        ({"filename": "/etc/passwd"}, 400),
        ({"filename": "../secret.txt"}, 400),
        ({"filename": "..%2fsecret.txt"}, 400),
        ({"filename": "a..b"}, 400),
        ({"filename": "x\0y"}, 400),
        ({"filename": "out.png", "type": "user"}, 400),
        ({"filename": "out.png", "type": ""}, 400),
        ({"filename": "secret.txt", "subfolder": "../../.."}, 403),
        ({"filename": "passwd", "subfolder": "/etc"}, 403),
        ({"filename": "secret.txt", "subfolder": "folder-link"}, 403),
        ({"filename": "link.txt"}, 403),
        ({"filename": "loop"}, 404),
        ({"filename": "sub"}, 404),
        ({"filename": "none.png"}, 404),
        ({"filename": "shared.txt"}, 404),
        ({"filename": "a" * 300}, 404),
        ({"filename": "图像.png"}, 404),
        ({"filename": "out.png", "subfolder": "no/such"}, 404),
    ],
)
async def test_refusals(placed: Running, params: dict[str, str], status: int) -> None:
    async with placed.http.get("/view", params=params) as response:
        assert response.status == status
        assert "secret" not in await response.text()
        assert "public" not in response.headers["Cache-Control"]


@pytest.mark.parametrize(
    "query",
    [
        "filename=..%2f..%2fsecret.txt",
        "filename=%2e%2e/secret.txt",
        "filename=%252e%252e%252fsecret.txt",
        "filename=%2Fetc%2Fpasswd",
        "filename=secret.txt&subfolder=%2e%2e%2f%2e%2e%2f%2e%2e",
        "filename=secret.txt&subfolder=..\\..",
        "filename=%00",
        "filename=%ff%fe",
        "filename=a%0d%0aSet-Cookie:%20x=1",
        "filename=secret.txt%20[input]&subfolder=../..",
    ],
)
async def test_encoded_attacks(placed: Running, query: str) -> None:
    status, answer = await placed.raw(f"GET /view?{query} HTTP/1.1")
    assert status in {400, 403, 404}
    assert b"root:" not in answer
    assert b"Set-Cookie" not in answer.split(b"\r\n\r\n")[0]


@pytest.mark.parametrize(
    ("name", "content_type", "attached"),
    [
        ("page.html", "application/octet-stream", True),
        ("code.js", "application/octet-stream", True),
        ("style.css", "application/octet-stream", True),
        ("draw.svg", "image/svg+xml", True),
        ("odd.unknown-type", "application/octet-stream", False),
        ("clip.mp4", "video/mp4", False),
        ("out.png", "image/png", False),
    ],
)
async def test_nothing_runs_as_a_page_of_ours(placed: Running, name: str, content_type: str, attached: bool) -> None:
    async with placed.http.get("/view", params={"filename": name}) as response:
        assert response.status == 200
        assert response.content_type == content_type
        assert response.headers["Content-Disposition"].startswith("attachment") is attached
        assert response.headers["Content-Security-Policy"] == "sandbox"
        assert f'filename="{name}"' in response.headers["Content-Disposition"]


@pytest.mark.parametrize("suffix", ["rdf", "xsl", "wsdl", "mml", "x3d", "xul", "xml", "svg", "xpdl", "rss", "XSL"])
async def test_no_xml_opens_in_a_tab(placed: Running, suffix: str) -> None:
    name = f"page.{suffix}"
    (placed.spec.directories.output / name).write_text("<x:script xmlns:x='http://www.w3.org/1999/xhtml'/>")
    async with placed.http.get("/view", params={"filename": name}) as response:
        inline = not response.headers["Content-Disposition"].startswith("attachment")
        assert inline is (response.content_type == "application/octet-stream")


async def test_ranges_for_seeking_videos(placed: Running) -> None:
    params = {"filename": "clip.mp4"}
    content = bytes(range(256)) * 40
    async with placed.http.get("/view", params=params, headers={"Range": "bytes=100-199"}) as response:
        assert response.status == 206
        assert response.headers["Content-Range"] == f"bytes 100-199/{len(content)}"
        assert await response.read() == content[100:200]
        etag = response.headers["ETag"]
    async with placed.http.get("/view", params=params, headers={"Range": "bytes=-10", "If-Range": etag}) as response:
        assert (response.status, await response.read()) == (206, content[-10:])
    async with placed.http.get("/view", params=params, headers={"Range": "bytes=-9", "If-Range": '"old"'}) as response:
        assert (response.status, await response.read()) == (200, content)
    async with placed.http.get("/view", params=params, headers={"Range": "bytes=20000-"}) as response:
        assert response.status == 416
    async with placed.http.get("/view", params=params, headers={"If-None-Match": etag}) as response:
        assert response.status == 304
    async with placed.http.head("/view", params=params) as response:
        assert (response.status, response.headers["Content-Length"]) == (200, str(len(content)))


@pytest.mark.parametrize(
    ("params", "form", "mode"),
    [
        ({"preview": "webp;90"}, "WEBP", "RGBA"),
        ({"preview": "webp"}, "WEBP", "RGBA"),
        ({"preview": "jpeg;50"}, "JPEG", "RGB"),
        ({"preview": "jpeg;50", "channel": "rgb"}, "JPEG", "RGB"),
        ({"preview": "jpeg", "channel": "rgba"}, "WEBP", "RGBA"),
        ({"preview": "webp;80", "channel": "rgb"}, "WEBP", "RGB"),
        ({"preview": "bmp;9999999999"}, "WEBP", "RGBA"),
        ({"preview": "webp;-1"}, "WEBP", "RGBA"),
        ({"preview": ""}, "WEBP", "RGBA"),
        ({"channel": "rgb"}, "PNG", "RGB"),
        ({"channel": "a"}, "PNG", "RGBA"),
        ({"channel": "rgba"}, "PNG", "RGBA"),
        ({"channel": "nonsense"}, "PNG", "RGBA"),
    ],
)
async def test_previews_and_channels(placed: Running, params: dict[str, str], form: str, mode: str) -> None:
    async with placed.http.get("/view", params={"filename": "out.png", **params}) as response:
        assert response.status == 200
        assert response.content_type == f"image/{form.lower()}"
        assert response.headers["Content-Disposition"] == 'filename="out.png"'
        assert response.headers["Content-Security-Policy"] == "sandbox"
        with Image.open(BytesIO(await response.read())) as picture:
            assert (picture.format, picture.mode, picture.size) == (form, mode, (10, 6))
            if params == {"channel": "a"}:
                assert picture.getpixel((0, 0)) == (0, 0, 0, 40)
            if params == {"channel": "rgb"}:
                assert picture.getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16", "CMYK", "RGB"])
async def test_previews_of_every_mode(placed: Running, mode: str) -> None:
    suffix = "tiff" if mode == "CMYK" else "png"
    Image.new(mode, (4, 4)).save(placed.spec.directories.output / f"m.{suffix}")
    for params in ({"preview": "webp;90"}, {"preview": "jpeg;90"}, {"channel": "rgb"}, {"channel": "a"}):
        async with placed.http.get("/view", params={"filename": f"m.{suffix}", **params}) as response:
            assert response.status == 200
            Image.open(BytesIO(await response.read())).load()


@pytest.mark.parametrize("params", [{"preview": "webp;90"}, {"channel": "rgb"}, {"channel": "a"}])
@pytest.mark.parametrize("name", ["page.html", "clip.mp4", "cut.png"])
async def test_what_is_no_picture_has_no_preview(placed: Running, params: dict[str, str], name: str) -> None:
    whole = (placed.spec.directories.output / "out.png").read_bytes()
    (placed.spec.directories.output / "cut.png").write_bytes(whole[:40])
    async with placed.http.get("/view", params={"filename": name, **params}) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "bad_request"


@pytest.mark.parametrize("params", [{"preview": "webp;90"}, {"preview": "jpeg"}, {"channel": "rgb"}, {"channel": "a"}])
@pytest.mark.parametrize("name", ["wide.png", "icon.ico"])
async def test_a_small_file_of_too_many_pixels_is_not_unfolded(
    placed: Running, params: dict[str, str], name: str
) -> None:
    output = placed.spec.directories.output
    Image.new("1", (8001, 8000)).save(output / "wide.png")
    content = (output / "wide.png").read_bytes()
    header = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 1, len(content), 22)  # claims 16 by 16
    (output / "icon.ico").write_bytes(header + content)
    async with placed.http.get("/view", params={"filename": name, **params}) as response:
        assert response.status == 413
        error = (await response.json())["error"]
        assert (error["type"], "64 million pixels" in error["message"]) == ("too_large", True)


@pytest.mark.parametrize("mode", ["1", "P", "L", "I;16"])
async def test_large_pictures_have_a_smaller_preview_and_whole_channels(placed: Running, mode: str) -> None:
    Image.new(mode, (16400, 1100)).save(placed.spec.directories.output / "long.png")
    for params, size in (({"preview": "jpeg;90"}, (15804, 1060)), ({"channel": "rgb"}, (16400, 1100))):
        async with placed.http.get("/view", params={"filename": "long.png", **params}) as response:
            assert response.status == 200
            with Image.open(BytesIO(await response.read())) as picture:
                assert picture.size == size


async def test_the_operators_links_lead_where_the_operator_wants(placed: Running, folder: Path) -> None:
    (folder / "mount").mkdir()
    (folder / "mount/photo.txt").write_text("photo")
    (placed.spec.public / "input/photos").symlink_to(folder / "mount")
    params = {"filename": "photo.txt", "subfolder": "photos", "type": "input"}
    async with placed.http.get("/view", params=params) as response:
        assert (response.status, await response.text()) == (200, "photo")
    for subfolder in ("photos/../../../../", "photos/../../workflows/../../", "/etc"):
        async with placed.http.get("/view", params=params | {"subfolder": subfolder}) as response:
            assert response.status in {403, 404}


async def test_the_users_own_link_inside_the_area_works(placed: Running) -> None:
    own = placed.spec.directories.output
    (own / "latest.txt").symlink_to(own / "sub/deep.txt")
    async with placed.http.get("/view", params={"filename": "latest.txt"}) as response:
        assert await response.text() == "deep"
