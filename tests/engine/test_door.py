"""Who may talk to an engine: its secret, the names of this machine, and the modes of what it writes."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from backend_pool.comfy.client import ComfyClient, Timeouts
from backend_pool.engine.door import is_loopback
from backend_pool.errors import BackendBroken
from tests.engine.client import connect
from tests.engine.graphs import image_graph

PATHS = ("/queue", "/api/queue", "/engine", "/internal/logs", "/ws?clientId=a", "/none")


async def status(url: str, host: str | None = None) -> tuple[int, str]:
    headers = {} if host is None else {"Host": host}
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as response:
        return response.status, await response.text()


@pytest.fixture
def guarded(start: Any, tmp_path: Path) -> tuple[str, str]:
    """An engine with a secret: its bare address, and the URL that it wrote."""
    (tmp_path / "secret").write_text("s3/cret\n")
    engine = start("--secret-file", str(tmp_path / "secret"), "--url-file", str(tmp_path / "url"))
    assert "s3" not in engine.url
    assert (tmp_path / "url").stat().st_mode & 0o777 == 0o600
    return engine.url, (tmp_path / "url").read_text()


async def test_nothing_is_answered_without_the_secret(guarded: tuple[str, str]) -> None:
    bare, url = guarded
    wrong = [bare, *(str(URL(bare).with_user(user).with_password(word)) for user, word in (("engine", "x"), ("", "")))]
    for attempt in wrong:
        for path in PATHS:
            code, body = await status(attempt + path)
            assert code == 401 and '"not_authenticated"' in body
    assert (await status(url + "/queue"))[0] == 200
    async with connect(url) as client:
        entry, _ = await client.run(image_graph(1, "guarded"))
    assert entry["status"]["status_str"] == "success"


async def test_the_pools_client_takes_the_secret_from_the_url(guarded: tuple[str, str]) -> None:
    bare, url = guarded
    timeouts = Timeouts(call_s=20, transfer_s=20, ping_s=20, max_frame_bytes=1_000_000)
    knowing, stranger = ComfyClient(url, timeouts), ComfyClient(bare, timeouts)
    try:
        assert "queue_running" in await knowing.get_json("/queue")
        async with knowing.events("a") as socket:
            assert (await socket.receive_json())["type"] == "status"
        with pytest.raises(BackendBroken):
            await stranger.get_json("/queue")
    finally:
        await knowing.close()
        await stranger.close()


@pytest.mark.parametrize("args", [["--secret-file", "none"], ["--secret-file", "/dev/null"]])
def test_an_engine_without_its_secret_does_not_start(start: Any, args: list[str]) -> None:
    with pytest.raises(RuntimeError, match="cannot start"):
        start(*args)


async def test_other_names_for_this_machine_are_refused(comfy_url: str) -> None:
    port = URL(comfy_url).port
    for path in PATHS:
        code, body = await status(comfy_url + path, f"evil.example:{port}")
        assert code == 403 and '"forbidden"' in body
    for host in ("localhost", f"localhost:{port}", "127.0.0.1", f"[::1]:{port}"):
        assert (await status(f"{comfy_url}/queue", host))[0] == 200


async def test_an_engine_for_the_network_has_whatever_name_that_gives_it(start: Any) -> None:
    engine = start("--host", "0.0.0.0")
    url = engine.url.replace("0.0.0.0", "127.0.0.1")
    assert (await status(f"{url}/queue", "gpu.example:8188"))[0] == 200


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9:80", True),
        ("::1", True),
        ("[::1]:80", True),
        ("LOCALHOST:80", True),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:80", False),
        ("127.0.0.1@evil.example", False),
        ("evil.example#localhost", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_names_of_this_machine(name: str, expected: bool) -> None:
    assert is_loopback(name) is expected


async def test_what_it_writes_is_its_accounts_alone(start: Any) -> None:
    engine = start(name="private")
    async with connect(engine.url) as client:
        await client.run(image_graph(2, "sub/private"))
    made = [
        path
        for folder in ("input", "output", "temp", "models")
        for path in (engine.base_dir / folder, *(engine.base_dir / folder).rglob("*"))
    ]
    assert any(path.is_file() for path in made)
    assert [path for path in made if path.stat().st_mode & 0o077] == []
