"""The frontend at `/`: caching, validators, ranges and codings, byte for byte."""

import gzip
from pathlib import Path

import pytest

from tests.user_sessions.light.conftest import Running, serving, spec_in
from user_sessions.light import asset_cache
from user_sessions.light.assets import HASHED, Frontend, accepted_codings
from user_sessions.light.runtime import LightRuntime

SCRIPT = "assets/main-AbCd_-12.js"
TEXT = b"console.log('x')\n" * 500


@pytest.fixture
def small(folder: Path) -> Path:
    """A frontend of three files."""
    root = folder / "web"
    (root / "assets").mkdir(parents=True)
    (root / "extensions/core").mkdir(parents=True)
    (root / "index.html").write_bytes(b"<html>" + b"y" * 2000)
    (root / SCRIPT).write_bytes(TEXT)
    (root / "assets/tiny-AbCd1234.js").write_bytes(b"1")
    (root / "extensions/core/a.js").write_bytes(b"2")
    return root


def built(small: Path) -> LightRuntime:
    """A runtime whose cache is complete."""
    cache = small.parent / "cache"
    frontend = Frontend(small, "custom", cache)
    assert asset_cache.build(small, cache, frontend.cache_name)
    return LightRuntime(cache, small)


async def test_index_is_revalidated(session: Running) -> None:
    async with session.http.get("/") as response:
        assert response.status == 200
        assert response.content_type == "text/html"
        assert response.headers["Cache-Control"] == "no-cache"
        etag = response.headers["ETag"]
        assert b"<title>ComfyUI</title>" in await response.read()
    async with session.http.get("/index.html", headers={"If-None-Match": etag}) as response:
        assert response.status == 304
        assert response.headers["Cache-Control"] == "no-cache"


async def test_every_asset_of_the_index_is_there_and_immutable(session: Running) -> None:
    root = Frontend.installed(None).root
    scripts = sorted(path.name for path in (root / "assets").glob("index-*.js"))
    assert scripts
    for name in scripts:
        async with session.http.get(f"/assets/{name}") as response:
            assert response.status == 200
            assert response.content_type == "text/javascript"
            assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert await response.read() == (root / "assets" / name).read_bytes()


async def test_head_says_the_length_and_sends_nothing(session: Running) -> None:
    async with session.http.get("/") as response:
        length = response.headers["Content-Length"]
    async with session.http.head("/") as response:
        assert response.status == 200
        assert response.headers["Content-Length"] == length
        assert await response.read() == b""


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/assets/../../__init__.py",
        "/assets/%2e%2e/%2e%2e/__init__.py",
        "//etc/passwd",
        "/assets",
        "/assets/",
        "/%00",
        "/" + "a" * 5000,
        "/index.html%00.js",
    ],
)
async def test_nothing_outside_the_table_is_served(session: Running, path: str) -> None:
    status, answer = await session.raw(f"GET {path} HTTP/1.1")
    assert status in {400, 404}
    assert b"root:" not in answer


async def test_compressed_copies_equal_the_plain_file(small: Path, folder: Path) -> None:
    async with serving(built(small), spec_in(folder)) as session:
        url = f"/{SCRIPT}"
        async with session.http.get(url, headers={"Accept-Encoding": "gzip, br"}) as response:
            packed = await response.read()
            packed_etag = response.headers["ETag"]
            assert response.headers["Content-Encoding"] == "gzip"
            assert response.headers["Vary"] == "Accept-Encoding"
            assert response.headers["Content-Type"].startswith("text/javascript")
            assert "immutable" in response.headers["Cache-Control"]
            assert len(packed) < len(TEXT)
            assert gzip.decompress(packed) == TEXT
        async with session.http.get(url, headers={"Accept-Encoding": "identity"}) as response:
            assert "Content-Encoding" not in response.headers
            assert response.headers["Vary"] == "Accept-Encoding"
            assert response.headers["ETag"] != packed_etag
            assert await response.read() == TEXT
        headers = {"Accept-Encoding": "gzip", "If-None-Match": packed_etag}
        async with session.http.get(url, headers=headers) as response:
            assert response.status == 304
        async with session.http.head(url, headers={"Accept-Encoding": "gzip"}) as response:
            assert response.headers["Content-Length"] == str(len(packed))
        headers = {"Accept-Encoding": "gzip", "Range": "bytes=10-19"}
        async with session.http.get(url, headers=headers) as response:
            assert response.status == 206
            assert response.headers["Content-Range"] == f"bytes 10-19/{len(packed)}"
            assert await response.read() == packed[10:20]


async def test_a_range_of_another_copy_sends_the_whole_file(small: Path, folder: Path) -> None:
    async with serving(built(small), spec_in(folder)) as session:
        headers = {"Accept-Encoding": "identity", "Range": "bytes=0-3", "If-Range": '"stale"'}
        async with session.http.get(f"/{SCRIPT}", headers=headers) as response:
            assert response.status == 200
            assert await response.read() == TEXT
            headers["If-Range"] = response.headers["ETag"]
        async with session.http.get(f"/{SCRIPT}", headers=headers) as response:
            assert response.status == 206
            assert await response.read() == TEXT[:4]
        headers["Range"] = "bytes=999999-"
        async with session.http.get(f"/{SCRIPT}", headers=headers) as response:
            assert response.status == 416


async def test_small_and_unlisted_files_go_out_plain(small: Path, folder: Path) -> None:
    async with serving(built(small), spec_in(folder)) as session:
        async with session.http.get("/assets/tiny-AbCd1234.js", headers={"Accept-Encoding": "gzip"}) as response:
            assert await response.read() == b"1"
            assert "Content-Encoding" not in response.headers
        async with session.http.get("/extensions") as response:
            assert await response.json() == ["/extensions/core/a.js"]


async def test_a_cache_that_comes_later_or_goes_away_is_noticed(small: Path, folder: Path) -> None:
    cache = folder / "cache"
    runtime = LightRuntime(cache, small)
    name = Frontend(small, "custom", cache).cache_name
    async with serving(runtime, spec_in(folder)) as session:

        async def coding() -> str | None:
            async with session.http.get(f"/{SCRIPT}", headers={"Accept-Encoding": "gzip"}) as response:
                body = await response.read()
                assert body == TEXT or gzip.decompress(body) == TEXT
                return response.headers.get("Content-Encoding")

        assert await coding() is None
        assert asset_cache.build(small, cache, name)
        assert await coding() == "gzip"
        (cache / name).rename(folder / "gone")
        assert await coding() is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", set()),
        ("gzip, deflate, br, zstd", {"gzip", "br"}),
        ("GZIP", {"gzip"}),
        ("gzip;q=0, br", {"br"}),
        ("gzip; q=0.000", set()),
        ("gzip;q=0.5", {"gzip"}),
        ("*", {"gzip", "br"}),
        ("*;q=0", set()),
        ("br;q=0, *", {"gzip"}),
        ("identity", set()),
        ("xgzipx", set()),
    ],
)
def test_accepted_codings(header: str, expected: set[str]) -> None:
    assert accepted_codings(header) == expected


@pytest.mark.parametrize(
    ("name", "hashed"),
    [
        ("assets/index-B2rHQ9Sn.js", True),
        ("assets/BillingTab-BQ4KtpF-.js", True),
        ("assets/3d-decomp-VhqaWobV.js.map", True),
        ("assets/favicon.ico", False),
        ("assets/images/comfy-logo-single.svg", False),
        ("assets/images/x-abcdefgh.svg", False),
        ("index.html", False),
        ("scripts/api.js", False),
    ],
)
def test_hashed_names(name: str, hashed: bool) -> None:
    assert bool(HASHED.fullmatch(name)) is hashed
