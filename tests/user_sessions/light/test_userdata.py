"""Userdata: ComfyUI's statuses and shapes, encoded names, moves, and attacks on names."""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from tests.user_sessions.light.conftest import Running


async def post(session: Running, path: str, body: bytes = b"{}") -> tuple[int, Any]:
    """POST raw bytes to a path that must not be re-encoded."""
    status, answer = await session.raw(f"POST {path} HTTP/1.1", body)
    text = answer.partition(b"\r\n\r\n")[2]
    return status, json.loads(text) if text.startswith((b"{", b'"', b"[")) else text.decode()


async def get(session: Running, route: str, **params: str) -> tuple[int, Any]:
    """GET; JSON where it is JSON."""
    async with session.http.get(route, params=params) as response:
        is_json = response.content_type == "application/json"
        return response.status, await (response.json() if is_json else response.text())


async def test_a_workflow_is_saved_listed_read_moved_and_deleted(session: Running) -> None:
    path = "/api/userdata/workflows%2Fmine.json"
    status, info = await post(session, f"{path}?overwrite=false&full_info=true", b'{"nodes": []}')
    assert status == 200
    assert info["path"] == "workflows/mine.json"
    assert info["size"] == 13
    assert info["modified"] > 1_600_000_000_000
    listed = await get(session, "/api/userdata", dir="workflows", recurse="true", split="false", full_info="true")
    assert listed[1] == [info | {"path": "mine.json"}]
    async with session.http.get(URL(path, encoded=True)) as response:
        assert await response.read() == b'{"nodes": []}'
        assert response.headers["Content-Disposition"].startswith("attachment")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"].startswith("private")
    assert await post(session, f"{path}/move/workflows%2Fsub%2Fnew%20name.json") == (200, "workflows/sub/new name.json")
    assert (await get(session, "/userdata", dir="workflows", recurse="true"))[1] == ["sub/new name.json"]
    assert (await get(session, "/userdata", dir="workflows", recurse="true", split="true"))[1] == [
        ["sub/new name.json", "sub", "new name.json"]
    ]
    assert (await session.raw("DELETE /userdata/workflows%2Fsub%2Fnew%20name.json HTTP/1.1"))[0] == 204
    assert (await session.raw("DELETE /userdata/workflows%2Fsub%2Fnew%20name.json HTTP/1.1"))[0] == 404
    assert (await session.raw(f"GET {path} HTTP/1.1"))[0] == 404


async def test_a_first_visit_finds_its_folders(session: Running) -> None:
    for folder in ("workflows", "subgraphs"):
        assert await get(session, "/api/userdata", dir=folder, recurse="true", full_info="true") == (200, [])


async def test_lists_refuse_like_comfyui(session: Running) -> None:
    assert await get(session, "/userdata") == (400, "Directory not provided")
    assert await get(session, "/userdata", dir="nothing") == (404, "Directory not found")
    assert await get(session, "/userdata", dir="../..") == (403, "Invalid directory")
    assert await get(session, "/userdata", dir="/etc") == (403, "Invalid directory")
    assert await get(session, "/userdata", dir="%2e%2e%2f%2e%2e") == (403, "Invalid directory")
    assert await get(session, "/userdata", dir="a\0b") == (403, "Invalid directory")
    assert (await get(session, "/userdata", dir="a" * 300))[0] == 404
    assert await get(session, "/v2/userdata", path="nothing") == (404, "Requested path not found")
    assert await get(session, "/v2/userdata", path="..") == (400, "Invalid path requested")


async def test_the_structured_list(session: Running) -> None:
    (session.home / "workflows/B").mkdir()
    (session.home / "workflows/B/x.json").write_text("{}")
    (session.home / "workflows/a.json").write_text("{}")
    (session.home / "workflows/.upload-12").write_text("half")
    status, entries = await get(session, "/v2/userdata")
    assert status == 200
    assert [(entry["type"], entry["path"]) for entry in entries] == [
        ("directory", "workflows/B"),
        ("directory", "subgraphs"),
        ("directory", "workflows"),
        ("file", "workflows/a.json"),
        ("file", "workflows/B/x.json"),
    ]
    assert set(entries[-1]) == {"name", "path", "type", "size", "modified"}
    assert (await get(session, "/api/v2/userdata", path="workflows%2FB"))[1][0]["path"] == "workflows/B/x.json"
    assert await get(session, "/v2/userdata", path="workflows/a.json") == (400, "Requested path is not a directory")


async def test_nothing_is_overwritten_against_the_wish(session: Running) -> None:
    assert (await post(session, "/userdata/a.json", b"1"))[0] == 200
    assert await post(session, "/userdata/a.json?overwrite=false", b"2") == (409, "File already exists")
    assert (await post(session, "/userdata/a.json?overwrite=true", b"3"))[0] == 200
    assert (session.home / "a.json").read_bytes() == b"3"
    await post(session, "/userdata/b.json", b"4")
    assert await post(session, "/userdata/a.json/move/b.json?overwrite=false") == (409, "File already exists")
    assert (await post(session, "/userdata/a.json/move/b.json"))[0] == 200
    assert (session.home / "b.json").read_bytes() == b"3"
    assert (await post(session, "/userdata/none.json/move/c.json"))[0] == 404


async def test_of_many_that_create_one_name_one_wins(session: Running) -> None:
    bodies = [f"{n}".encode() * 50_000 for n in range(10)]
    answers = await asyncio.gather(*(post(session, "/userdata/x.bin?overwrite=false", body) for body in bodies))
    assert sorted(status for status, _ in answers) == [200] + [409] * 9
    winner = [status for status, _ in answers].index(200)
    assert (session.home / "x.bin").read_bytes() == bodies[winner]
    assert [path.name for path in session.home.iterdir() if path.is_file()] == ["x.bin"]


@pytest.mark.parametrize("name", ["Ünïcode 图像 🎨.json", "a b+c&d=e.json", "100%.json", "(1).json", "quote'\".json"])
async def test_names_survive_the_round_trip(session: Running, name: str) -> None:
    path = f"/api/userdata/{quote(f'workflows/{name}', safe='')}"
    assert await post(session, path, b"content") == (200, f"workflows/{name}")
    assert (session.home / "workflows" / name).read_bytes() == b"content"
    status, answer = await session.raw(f"GET {path} HTTP/1.1")
    assert status == 200
    assert answer.endswith(b"content")


@pytest.mark.parametrize(
    "segment",
    [
        "..%2Fx",
        "..%2F..%2F..%2Fsecret.txt",
        "%2e%2e%2fx",
        "%252e%252e%252fx",
        "%2Fetc%2Fpasswd",
        "a%2F..%2F..%2F..%2Fx",
        "link%2Fx",
        "link",
        "%00",
        "a%00b",
        ".",
        "%2e",
        "..",
        "..%5C..%5Cx",
        "b" * 300,
        "%ff",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_names_that_lead_out(session: Running, folder: Path, method: str, segment: str) -> None:
    (folder / "secret.txt").write_text("root: secret")
    (session.home / "link").symlink_to(folder)
    (session.home / "x").write_text("mine")
    before = sorted(path for path in folder.rglob("*") if session.home not in path.parents)
    status, answer = await session.raw(f"{method} /userdata/{segment} HTTP/1.1", b"evil" if method == "POST" else b"")
    assert status in {400, 403, 404} or (segment in {"..%5C..%5Cx", "%ff"} and status == 200)
    assert b"root:" not in answer
    assert (folder / "secret.txt").read_text() == "root: secret"
    assert sorted(path for path in folder.rglob("*") if session.home not in path.parents) == before
    assert (session.home / "x").read_text() == "mine"


@pytest.mark.parametrize("target", ["..%2Fx", "%2Fetc%2Fx", "%252e%252e%252fx", ".", "workflows"])
async def test_moves_that_lead_out(session: Running, target: str) -> None:
    (session.home / "x").write_text("mine")
    status, _ = await post(session, f"/userdata/x/move/{target}")
    assert status in {400, 403, 404}
    assert (session.home / "x").read_text() == "mine"
    assert (await post(session, f"/userdata/{target}/move/y"))[0] in {400, 403, 404} or target == "workflows"


async def test_folders_are_not_files(session: Running) -> None:
    assert (await post(session, "/userdata/workflows", b"x"))[0] == 400
    assert (await session.raw("DELETE /userdata/workflows HTTP/1.1"))[0] == 400
    assert (await session.raw("GET /userdata/workflows HTTP/1.1"))[0] == 403
    (session.home / "file").write_text("x")
    assert (await post(session, "/userdata/file%2Fbelow", b"x"))[0] == 400
    assert (await post(session, "/userdata/workflows/move/workflows%2Fdeeper"))[0] == 400


async def test_a_link_that_leads_out_is_not_listed(session: Running, folder: Path) -> None:
    (folder / "secret.txt").write_text("x")
    (session.home / "workflows/leak.json").symlink_to(folder / "secret.txt")
    (session.home / "workflows/kept.json").write_text("{}")
    assert (await get(session, "/userdata", dir="workflows"))[1] == ["kept.json"]


async def test_too_large_is_413_and_leaves_nothing(session: Running) -> None:
    status, answer = await post(session, "/userdata/big", bytes(2 * 1024 * 1024 + 1))
    assert status == 413
    assert answer["error"]["type"] == "too_large"
    assert [path for path in session.home.iterdir() if path.is_file()] == []


async def test_the_single_user(session: Running) -> None:
    assert await get(session, "/api/users") == (200, {"storage": "server", "migrated": True})
    async with session.http.post("/users", json={"username": "eve"}) as response:
        assert response.status == 400
        assert isinstance((await response.json())["error"], dict)
