"""Uploads: names, duplicates, limits, and every way to send a form that is wrong."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.user_sessions.light.conftest import Running
from tests.user_sessions.light.uploads import files, png, send


@pytest.mark.parametrize("route", ["/upload/image", "/api/upload/image"])
async def test_an_upload_arrives_byte_for_byte(session: Running, route: str) -> None:
    content = bytes(range(256)) * 6000
    assert await send(session, content, route=route) == (200, {"name": "a.png", "subfolder": "", "type": "input"})
    assert (session.spec.directories.input / "a.png").read_bytes() == content
    assert files(session.spec.directories.input) == ["a.png"]


@pytest.mark.parametrize("area", ["input", "output", "temp"])
async def test_types_and_subfolders(session: Running, area: str) -> None:
    status, answer = await send(session, b"x", type=area, subfolder="clipspace/deep")
    assert (status, answer) == (200, {"name": "a.png", "subfolder": "clipspace/deep", "type": area})
    assert (getattr(session.spec.directories, area) / "clipspace/deep/a.png").read_bytes() == b"x"


async def test_equal_content_is_reused_and_other_content_is_numbered(session: Running) -> None:
    names = [(await send(session, content))[1]["name"] for content in (b"one", b"one", b"two", b"two", b"one", b"six")]
    assert names == ["a.png", "a.png", "a (1).png", "a (1).png", "a.png", "a (2).png"]
    assert files(session.spec.directories.input) == ["a (1).png", "a (2).png", "a.png"]


@pytest.mark.parametrize("value", ["true", "1"])
async def test_overwrite(session: Running, value: str) -> None:
    await send(session, b"one")
    assert (await send(session, b"two", overwrite=value))[1]["name"] == "a.png"
    assert (session.spec.directories.input / "a.png").read_bytes() == b"two"
    assert (await send(session, b"three", overwrite="false"))[1]["name"] == "a (1).png"


async def test_uploads_of_one_name_at_once_all_survive(session: Running) -> None:
    contents = [f"{number}".encode() * 1000 for number in range(20)]
    answers = await asyncio.gather(*(send(session, content) for content in contents))
    names = [answer["name"] for _, answer in answers]
    assert len(set(names)) == 20
    stored = {(session.spec.directories.input / name).read_bytes() for name in names}
    assert stored == set(contents)


@pytest.mark.parametrize("name", ["Ünïcode 图像 🎨.png", "with space & (1).png", "100%.png", "-rf.png", "a'b.png"])
async def test_names_stay_as_sent(session: Running, name: str) -> None:
    writer = aiohttp.MultipartWriter("form-data")
    part = writer.append(b"x")
    part.set_content_disposition("form-data", name="image", filename=name, quote_fields=False)
    async with session.http.post("/upload/image", data=writer) as response:
        assert response.status == 200, await response.text()
        assert (await response.json())["name"] == name
    async with session.http.get("/view", params={"filename": name, "type": "input"}) as response:
        assert await response.read() == b"x"


@pytest.mark.parametrize(
    ("filename", "fields"),
    [
        ("../a.png", {}),
        ("../../output/a.png", {}),
        ("a.png", {"subfolder": ".."}),
        ("a.png", {"subfolder": "../input2"}),
        ("a.png", {"subfolder": "/tmp"}),
        ("a.png", {"subfolder": "out"}),
        ("a.png", {"subfolder": "a\0b"}),
        ("a.png", {"type": "user"}),
        ("a.png", {"type": "../user"}),
        ("..", {}),
        (".", {}),
        ("folder", {}),
        ("a" * 300 + ".png", {}),
        ("a.png", {"subfolder": "b" * 5000}),
        ("a.png", {"subfolder": "there.txt"}),
    ],
)
async def test_names_that_lead_out_or_cannot_be_are_refused(
    session: Running, folder: Path, filename: str, fields: dict[str, str]
) -> None:
    own = session.spec.directories.input
    (own / "folder").mkdir()
    (own / "there.txt").write_text("a file")
    (own / "out").symlink_to(folder)
    before = files(folder)
    status, answer = await send(session, b"evil", filename, **fields)
    assert status == 400
    assert set(answer["error"]) == {"type", "message", "details", "extra_info"}
    assert files(folder) == before


@pytest.mark.parametrize("route", ["/upload/image", "/upload/mask"])
@pytest.mark.parametrize("area", ["input", "output", "temp"])
@pytest.mark.parametrize(
    ("filename", "subfolder"),
    [
        (".upload-0123", ""),
        (".incoming", ""),
        ("1-0.part", ".incoming"),
        (".incoming/1-0.part", ""),
        ("1-0.part", "sub/../.incoming"),
        ("a.png", "./.incoming/"),
        ("a.png", "sub/.hidden"),
        (".upload-0123", "sub"),
    ],
)
async def test_the_proxys_own_working_names_are_refused(
    session: Running, route: str, area: str, filename: str, subfolder: str
) -> None:
    own = session.spec.directories
    (own.input / "photo.png").write_bytes(png((1, 2, 3)))
    fields = {
        "type": area,
        "subfolder": subfolder,
        "overwrite": "1",
        "original_ref": '{"filename": "photo.png [input]"}',
    }
    status, answer = await send(session, png((0, 0, 0, 9), "RGBA"), filename, route, **fields)
    assert (status, answer["error"]["message"]) == (400, "Names of files and folders must not begin with a dot.")
    assert [files(folder) for folder in (own.input, own.output, own.temp)] == [["photo.png"], [], []]


async def test_a_link_to_a_working_folder_is_not_written_through(session: Running) -> None:
    own = session.spec.directories.input
    (own / ".incoming").mkdir()
    (own / "door").symlink_to(own / ".incoming")
    assert (await send(session, b"x", "1-0.part", subfolder="door"))[0] == 400
    assert files(own) == []


async def test_a_link_out_of_the_area_is_not_written_through(session: Running, folder: Path) -> None:
    victim = folder / "victim.png"
    victim.write_bytes(b"before")
    (session.spec.directories.input / "a.png").symlink_to(victim)
    assert (await send(session, b"evil", overwrite="true"))[0] == 400
    assert victim.read_bytes() == b"before"


async def test_too_large_is_413_and_leaves_nothing(session: Running) -> None:
    status, answer = await send(session, bytes(2 * 1024 * 1024 + 1))
    assert status == 413
    assert answer["error"]["type"] == "too_large"
    assert "2 MB" in answer["error"]["message"]
    assert files(session.spec.directories.input) == []


async def test_too_large_without_a_length_is_413_and_leaves_nothing(session: Running) -> None:
    async def body() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        for _ in range(30):
            yield bytes(100_000)
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with session.http.post("/upload/image", data=body(), headers=headers) as response:
        assert response.status == 413
        assert (await response.json())["error"]["type"] == "too_large"
    assert files(session.spec.directories.input) == []


HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"no boundary at all"),
        ("multipart/form-data; boundary=b", HEAD + b"never ends"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: nonsense;;;==\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", HEAD.replace(b'"a.png"', b'""') + b"x\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", HEAD.replace(b'; filename="a.png"', b"") + b"x\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", HEAD.replace(b"image", b"file") + b"x\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c--\r\n--b--"),
        ("multipart/form-data; boundary=b", HEAD.replace(b"\r\n\r\n", b"\r\nContent-Length: -5\r\n\r\n") + b"x"),
        ("multipart/form-data", HEAD + b"x\r\n--b--\r\n"),
        ("multipart/form-data; boundary=" + "b" * 200, b"x"),
        ("application/x-www-form-urlencoded", b"image=x"),
        ("application/json", b"{}"),
        ("", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"X: y\r\n" * 50_000),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n' * 40 + b"--b--",
        ),
        (
            "multipart/form-data; boundary=b",
            HEAD.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n") + b"eA==\r\n--b--\r\n",
        ),
        (
            "multipart/form-data; boundary=b",
            HEAD + b'x\r\n--b\r\nContent-Disposition: form-data; name="type"\r\n\r\n\xff\xfe\r\n--b--\r\n',
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::aiohttp.multipart.BadContentDispositionHeader")
@pytest.mark.filterwarnings("ignore::aiohttp.multipart.BadContentDispositionParam")
async def test_malformed_forms_are_400_and_leave_nothing(session: Running, content_type: str, body: bytes) -> None:
    async with session.http.post("/upload/image", data=body, headers={"Content-Type": content_type}) as response:
        assert response.status == 400, await response.text()
        assert isinstance((await response.json())["error"], dict)
    assert files(session.spec.directories.input) == []


async def test_a_browser_that_vanishes_leaves_nothing(session: Running) -> None:
    reader, writer = await asyncio.open_unix_connection(str(session.spec.socket))
    head = "POST /upload/image HTTP/1.1\r\nHost: x\r\nX-Cluster-Session-Secret: s3cret-of-this-session\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000000\r\n\r\n"
    writer.write(head.encode() + HEAD + bytes(300_000))
    await writer.drain()
    async with session.http.get("/users") as response:  # the session has turned to other work meanwhile
        assert response.status == 200
    writer.close()
    await writer.wait_closed()
    deadline = asyncio.get_running_loop().time() + 20
    while files(session.spec.directories.input):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)  # the server's clean-up has no event of its own
    del reader


async def test_leftovers_of_a_killed_session_are_removed(folder: Path, session: Running) -> None:
    from user_sessions.light.spool import PREFIX, remove_leftovers

    own = session.spec.directories.input
    (own / f"{PREFIX}0123").write_bytes(b"half")
    (own / "kept.png").write_bytes(b"whole")
    remove_leftovers(own)
    assert files(own) == ["kept.png"]


async def test_a_large_upload_is_whole(session: Running) -> None:
    content = hashlib.sha256(b"seed").digest() * 60_000
    assert (await send(session, content, "big.bin"))[0] == 200
    async with session.http.get("/view", params={"filename": "big.bin", "type": "input"}) as response:
        assert hashlib.sha256(await response.read()).digest() == hashlib.sha256(content).digest()
