"""ComfyUI's node and model routes over a pool of two unlike engines, as two users see them."""

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from proxy.comfy.packed_answer import takes_gzip
from proxy.comfy.routes import owns
from tests.backend_pool.conftest import Start, start
from tests.proxy.control_server import API, Server, serving
from user_sessions.directories import prepare_user

__all__ = ["start"]

PLAIN = {"Accept-Encoding": "identity"}


async def until_listed(browser: httpx.AsyncClient, path: str, wanted: Any) -> Any:
    """The JSON of a path once it holds `wanted`."""
    async with asyncio.timeout(60):
        while wanted not in (found := (await browser.get(path)).json()):
            await asyncio.sleep(0.05)
    return found


async def nodes(browser: httpx.AsyncClient, **headers: str) -> Any:
    return (await browser.get("/object_info", headers=headers)).json()


def listed(document: Any, kind: str, name: str) -> list[str]:
    (spec, *_) = document[kind]["input"]["required"][name]
    assert isinstance(spec, list)
    return spec


@pytest.fixture
def engines(start: Start) -> list[str]:
    plain = start("--checkpoints", "a.safetensors", "--without-nodes", "ImageBlur", name="plain")
    rich = start("--checkpoints", "b.safetensors", name="rich")
    folder = rich.base_dir / "models/loras/styles"
    folder.mkdir(parents=True)
    header = json.dumps({"__metadata__": {"who": "rich"}}).encode()
    (folder / "ink.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    Image.new("RGB", (4, 4), "red").save(folder / "ink.preview.png")
    return [plain.url, rich.url]


async def test_what_the_pool_offers(tmp_path: Path, engines: list[str]) -> None:
    """One server for all of it: starting one costs more than asking."""
    more: dict[str, Any] = {"backends": engines, "probe_interval_s": 0.2, "hidden_models": ["watercolor*"]}
    async with serving(tmp_path, alive=True, **more) as server:
        ann, admin = await server.user("Ann"), await server.user("Root", admin=True)
        await server.user("Ben")
        picture = prepare_user(tmp_path, ann.slug).input / "anns.png"
        picture.write_bytes(b"x")
        async with (
            server.signed_in("Ann") as hers,
            server.signed_in("Ben") as his,
            server.signed_in(admin.name) as root,
        ):
            await until_listed(hers, "/models/checkpoints", "a.safetensors")
            await until_listed(hers, "/models/checkpoints", "b.safetensors")
            await _union(hers, his)
            await _packed(hers, picture)
            await _models(hers)
            await _for_administrators(server, hers, root)


async def _union(hers: httpx.AsyncClient, his: httpx.AsyncClient) -> None:
    document, other = await nodes(hers), await nodes(his)
    assert "ImageBlur" in document, "a node that one engine has"
    assert sorted(listed(document, "CheckpointLoaderSimple", "ckpt_name")) == ["a.safetensors", "b.safetensors"]
    assert "anns.png" in listed(document, "LoadImage", "image")
    assert "anns.png" not in json.dumps(other)
    assert "watercolor" not in json.dumps(document)
    one = (await hers.get("/object_info/LoadImage")).json()
    assert one == {"LoadImage": document["LoadImage"]}
    for alias in ("/api/object_info", "/%6fbject_info", "/api/%6Fbject_info"):
        assert (await hers.get(alias)).json() == document
    for odd in ("/api//object_info", "/api/api/object_info", "/object_info/", "/OBJECT_INFO"):
        answer = await hers.get(odd)
        assert answer.status_code == 404 or answer.json() == {}, odd


async def _packed(hers: httpx.AsyncClient, picture: Path) -> None:
    whole = await hers.get("/object_info", headers=PLAIN)
    assert "content-encoding" not in whole.headers
    async with hers.stream("GET", "/object_info", headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join([part async for part in answer.aiter_raw()])
        assert answer.headers["content-encoding"] == "gzip" and "Accept-Encoding" in answer.headers["vary"]
        assert answer.headers["cache-control"] == "private, no-cache"
    assert gzip.decompress(raw) == whole.content and len(raw) * 4 < len(whole.content)
    etag = whole.headers["etag"]
    again = await hers.get("/object_info", headers={"If-None-Match": f'"x", {etag}'})
    assert (again.status_code, again.content) == (304, b"")
    picture.with_name("new.png").write_bytes(b"x")
    changed = await hers.get("/object_info", headers={"If-None-Match": etag})
    assert changed.status_code == 200 and "new.png" in changed.text
    head = await hers.head("/object_info", headers=PLAIN)
    assert head.content == b"" and int(head.headers["content-length"]) == len(changed.content)


async def _models(hers: httpx.AsyncClient) -> None:
    loras = (await hers.get("/models/loras")).json()
    assert "styles/ink.safetensors" in loras and len(loras) == len(set(loras))
    assert {"checkpoints", "loras", "configs"} <= set((await hers.get("/models")).json())
    for missing in ("/models/nope", "/experiment/models/nope", "/view_metadata/loras?filename=nope.safetensors"):
        assert (await hers.get(missing)).status_code == 404
    assert (await hers.get("/embeddings")).json() == ["easynegative_example"]
    folders = (await hers.get("/experiment/models")).json()
    assert {"name": "loras", "folders": ["models/loras"]} in folders and "configs" not in [f["name"] for f in folders]
    entries = {entry["name"]: entry for entry in (await hers.get("/api/experiment/models/loras")).json()}
    assert entries["styles/ink.safetensors"]["size"] > 0 and not any("watercolor" in name for name in entries)
    preview = await hers.get("/experiment/models/preview/loras/0/styles/ink.safetensors")
    assert preview.headers["content-type"] == "image/webp" and preview.content[8:12] == b"WEBP"
    for nothing in ("loras/0/pixel_art_example.safetensors", "loras/0/../../x.png", "nope/0/x", "loras/x/y"):
        assert (await hers.get(f"/api/experiment/models/preview/{nothing}")).status_code == 404
    metadata = await hers.get("/view_metadata/loras?filename=styles/ink.safetensors")
    assert metadata.json() == {"who": "rich"}


async def _for_administrators(server: Server, hers: httpx.AsyncClient, root: httpx.AsyncClient) -> None:
    found = (await hers.get(f"{API}/models", params={"folder": "checkpoints"})).json()
    names = {row.id: row.name for row in await server.cluster.work.registry.listing()}
    assert {(m["name"], *m["backends"]) for m in found["models"]} == {
        ("a.safetensors", names[1]),
        ("b.safetensors", names[2]),
    }
    assert found["backends"] == 2
    every = (await hers.get(f"{API}/models")).json()["models"]
    assert {"folder": "loras", "name": "styles/ink.safetensors", "backends": [names[2]]} in every
    assert (await hers.get(f"{API}/models?folder=nope")).status_code == 404
    assert (await hers.get(f"{API}/admin/backends/compare")).status_code == 403
    plain, rich = (await root.get(f"{API}/admin/backends/compare")).json()["backends"]
    assert (plain["lacks_nodes"], rich["lacks_nodes"]) == (["ImageBlur"], [])
    assert "loras/styles/ink.safetensors" in plain["lacks_models"] and rich["lacks_models"] == [
        "checkpoints/a.safetensors"
    ]
    assert (await root.post(f"{API}/admin/backends/1/refresh")).json()["name"] == names[1]
    assert (await root.post(f"{API}/admin/backends/99/refresh")).status_code == 404
    assert (await hers.post(f"{API}/admin/backends/1/refresh")).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/object_info", "/object_info/KSampler", "/object_info/", "/api/object_info", "/models", "/models/loras",
        "/api/models/x/y", "/embeddings", "/api/embeddings", "/experiment/models", "/api/experiment/models/loras",
        "/experiment/models/preview/loras/0/a/b.safetensors", "/view_metadata/loras", "/api/view_metadata/loras",
    ],
)  # fmt: skip
def test_a_session_never_answers_for_the_pool(path: str) -> None:
    """What it has itself is of no use to jobs, and its paths are nobody's business."""
    assert owns(path)


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("gzip", True),
        ("GZIP;q=0.5, br", True),
        ("br, *", True),
        ("*;q=0", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("identity", False),
        ("", False),
    ],
)
def test_who_takes_gzip(header: str, taken: bool) -> None:
    assert takes_gzip(header) is taken
