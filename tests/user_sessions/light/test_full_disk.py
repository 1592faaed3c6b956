"""A disk that is really full: 507 with a message, nothing half-written, and the session lives on."""

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.user_sessions.light.conftest import SECRET
from tests.user_sessions.light.uploads import form
from user_sessions.runtime import SECRET_HEADER

DISK_BYTES = 512 * 1024


def namespaces() -> bool:
    """Whether a mount of our own is possible here."""
    tool = shutil.which("unshare")
    return tool is not None and subprocess.run([tool, "-Urm", "true"], check=False, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not namespaces(), reason="needs `unshare -Urm` to mount a small disk")


@pytest.fixture
def server(folder: Path) -> Iterator[Path]:
    """The socket of a session on a disk of 512 KiB."""
    command = ["unshare", "-Urm", sys.executable, "-m", f"{__package__}.disk_server", str(folder), str(DISK_BYTES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield folder / "s.sock"
        finally:
            process.kill()


@pytest.fixture
async def http(server: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of it."""
    connector = aiohttp.UnixConnector(str(server))
    async with aiohttp.ClientSession("http://s", connector=connector, headers={SECRET_HEADER: SECRET}) as http:
        yield http


async def used(http: aiohttp.ClientSession) -> list[str]:
    """Names in input and in userdata."""
    async with http.get("/internal/files/input") as one, http.get("/v2/userdata") as two:
        files = [entry["path"] for entry in await two.json() if entry["type"] == "file"]
        return [*await one.json(), *files]


async def test_every_writer_says_507_and_leaves_nothing(http: aiohttp.ClientSession) -> None:
    async with http.post("/settings/small", data="1") as response:
        assert response.status == 200
    before = await used(http)
    big = bytes(DISK_BYTES + 100_000)

    async def chunks() -> AsyncIterator[bytes]:
        yield big

    async with http.post("/upload/image", data=form(big, "big.png")) as response:
        answer = await response.json()
        assert response.status == 507
        assert answer["error"]["type"] == "disk_full"
        assert "room" in answer["error"]["message"]
    async with http.post("/userdata/workflows%2Fbig.json", data=chunks()) as response:
        assert response.status == 507
        assert (await response.json())["error"]["type"] == "disk_full"
    async with http.post("/settings/big", data=b'"' + b"x" * DISK_BYTES + b'"') as response:
        assert response.status == 507
    assert await used(http) == before


async def test_the_session_works_on_after_a_full_disk(http: aiohttp.ClientSession) -> None:
    for number in range(40):
        async with http.post("/upload/image", data=form(bytes([number]) * 50_000, f"{number}.png")) as response:
            status = response.status
        if status != 200:
            break
    assert status == 507
    assert 1 < len(await used(http)) < 12
    async with http.get("/settings") as response:
        assert (await response.json())["Comfy.TutorialCompleted"] is True
    async with http.get("/view?filename=0.png&type=input") as response:
        assert await response.read() == bytes(50_000)
    async with http.get("/") as response:
        assert response.status == 200
