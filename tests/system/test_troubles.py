"""A full disk, no backend at all, browsers that vanish, a class that arrives at once."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.cluster import Cluster, start_cluster
from tests.contract import graphs
from tests.engines import start_engine
from tests.system.conftest import Newcomer
from tests.system.inside import LOOK_S, becomes, open_files, pids
from tests.system.people import Someone, painting

CLASS_SIZE = 20
WHY_NO_DISK = "a small disk can be mounted by root alone (mount: permission denied)"


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """A file system of that size over a directory, or a skip that says why not."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "small", path], check=False)
    if mounted.returncode != 0:
        pytest.skip(WHY_NO_DISK)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason=WHY_NO_DISK)
async def test_a_full_disk_fails_the_job_clearly_and_the_queue_goes_on(ann: Someone) -> None:
    await ann.runs(graphs.saved(1, "before"))
    large = {**graphs.saved(2, "large"), "1": graphs.empty_image(2, 4096, 4096)}
    with small_disk(ann.folder / "output", "24k"):
        async with ann.comfy.socket("disk") as socket:
            failing = await ann.comfy.submit(large, "disk")
            small = await ann.comfy.submit(graphs.saved(3, "small"), "disk")
            frames = await socket.job(failing)
            assert frames[-2].kind == "execution_error"
            assert "space" in frames[-2].data["exception_message"]
            assert (await socket.job(small))[-2].kind == "execution_success"
        job = await ann.job(failing)
        assert job["status"] == "failed"
        assert job["execution_error"]["exception_message"] == frames[-2].data["exception_message"]
        assert (await ann.comfy.history(failing))["status"]["status_str"] == "error"
        assert [path.name for path in ann.files()] == ["small_00001_.png"]  # and no partial file
    assert (await ann.job(await ann.runs(large)))["status"] == "completed"


@pytest.fixture
async def lonely(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A server that is quick to find out that its only backend is gone."""
    engine = start_engine(tmp_path / "engine")
    env = {
        "COMFY_CLUSTER_PROBE_INTERVAL_S": "0.3",
        "COMFY_CLUSTER_BACKEND_DOWN_AFTER_S": "1",
        "COMFY_CLUSTER_BACKENDS": f'["{engine.url}"]',
    }
    with await asyncio.to_thread(start_cluster, tmp_path, "--engines", "0", env=env) as running:
        engine.stop()
        yield running


async def test_without_any_backend_the_queue_waits_and_goes_on(lonely: Cluster, tmp_path: Path) -> None:
    ann = Someone(lonely, await asyncio.to_thread(lonely.user, "ann"))
    admin = Someone(lonely, await asyncio.to_thread(lonely.user, "boss", admin=True))
    (backend,) = (await admin.comfy.get("/cluster/api/v1/admin/backends")).json()["backends"]
    async with ann.comfy.socket("tab") as socket:
        waiting = [await ann.comfy.submit(graphs.saved(seed), "tab") for seed in range(2)]
        async with asyncio.timeout(30):
            while backend["health"] != "down":
                (backend,) = (await admin.comfy.get("/cluster/api/v1/admin/backends")).json()["backends"]
        async with asyncio.timeout(30):
            while await ann.ids() != ([], waiting, []):  # what had been given to it comes back
                await asyncio.sleep(LOOK_S)
        assert (await ann.comfy.get("/object_info/KSampler")).json() != {}  # the canvas can still be worked on
        assert (await ann.comfy.get("/cluster/")).status == 200
        back = start_engine(tmp_path / "engine", "--port", backend["url"].rpartition(":")[2])
        try:
            for prompt_id in waiting:
                assert (await socket.job(prompt_id))[-2].kind == "execution_success"
        finally:
            back.stop()
    await ann.leave()
    await admin.leave()


async def test_with_no_backend_ever_the_message_says_so(tmp_path: Path) -> None:
    with await asyncio.to_thread(
        start_cluster, tmp_path, "--engines", "0", "--backend", "http://127.0.0.1:9"
    ) as cluster:
        ann = Someone(cluster, await asyncio.to_thread(cluster.user, "ann"))
        answer = await ann.comfy.post("/prompt", {"prompt": graphs.saved(1)})
        assert (answer.status, answer.json()["error"]["type"]) == (503, "unavailable")
        assert "backend" in answer.json()["error"]["message"]
        assert (await ann.comfy.get("/object_info")).json() == {}
        assert (await ann.comfy.get("/api/jobs")).status == 200
        assert (await ann.comfy.get("/system_stats")).json()["devices"] == []
        assert (await ann.comfy.get("/", headers={"Accept": "text/html"})).status == 200
        await ann.leave()


async def test_browsers_that_vanish_leave_nothing_open(ann: Someone) -> None:
    """In the middle of a download, of an upload, and with sockets open."""
    await ann.comfy.get("/settings")
    (ann.folder / "output" / "large.bin").write_bytes(bytes(64 << 20))
    watched = [ann.cluster.process.pid, *pids(ann.cluster.data_dir, "user_sessions.zygote")]
    await _vanish(ann, "GET /view?filename=large.bin HTTP/1.1\r\n\r\n", 1)  # whatever is opened once and kept
    await ann.runs(graphs.saved(1))
    before = {pid: open_files(pid) for pid in watched}
    upload = "POST /upload/image HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 9000000"
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
    upgrade += "\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
    await _vanish(ann, "GET /view?filename=large.bin HTTP/1.1\r\n\r\n", 20)
    await _vanish(ann, f"{upload}\r\n\r\n--x\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\nabc", 20)
    await _vanish(ann, f"GET /ws HTTP/1.1\r\n{upgrade}\r\n\r\n", 20)
    await becomes(lambda: all(open_files(pid) <= before[pid] + 2 for pid in watched))
    assert not [path for path in ann.files("input") if path.name == "a"]
    assert (await ann.comfy.get("/view?filename=large.bin", headers={"Range": "bytes=0-9"})).body == bytes(10)


async def test_a_whole_class_arrives_at_once(cluster: Cluster, newcomer: Newcomer) -> None:
    people = [await newcomer(f"pupil{number}") for number in range(CLASS_SIZE)]

    async def arrive(someone: Someone) -> None:
        form = {"username": someone.person.name, "password": someone.person.password}
        jar = aiohttp.CookieJar(unsafe=True)
        page = {"Accept": "text/html"}
        async with aiohttp.ClientSession(
            cluster.url, cookie_jar=jar, headers={"Origin": cluster.url}, timeout=aiohttp.ClientTimeout(total=60)
        ) as browser:
            async with browser.post("/cluster/login", data=form, headers=page, allow_redirects=False) as signed_in:
                assert signed_in.status == 303
            await browser.get("/", headers=page)  # may show the page for a session that starts
            async with browser.post("/cluster/api/v1/session/start") as there:
                assert there.status == 200
            for path in ("/", "/api/settings", "/api/object_info", "/api/extensions", "/api/jobs", "/api/i18n"):
                async with browser.get(path, headers=page) as answer:
                    assert answer.status == 200, path
                    assert not answer.url.path.startswith("/cluster"), path
            async with browser.ws_connect("/ws") as ws:
                assert (await ws.receive_json())["type"] == "status"

    await asyncio.gather(*(arrive(someone) for someone in people))
    prompts = [painting(number, steps=2) for number in range(CLASS_SIZE)]
    jobs = await asyncio.gather(*(one.runs(prompt) for one, prompt in zip(people, prompts, strict=True)))
    pictures = await asyncio.gather(*(one.picture(job) for one, job in zip(people, jobs, strict=True)))
    assert len(set(pictures)) == CLASS_SIZE


async def _vanish(someone: Someone, request: str, times: int) -> None:
    """Send a request, take the first bytes of an answer if one comes, and reset the connection."""
    url = urlsplit(someone.cluster.url)
    line, _, rest = request.partition("\r\n")
    head = f"{line}\r\nHost: {url.netloc}\r\nAuthorization: Bearer {someone.person.token}\r\n{rest}".encode()
    for _ in range(times):
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(head)
        await writer.drain()
        if not request.startswith("POST"):
            assert await reader.read(20)
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        await someone.comfy.get("/settings")  # one after the other, so that idle connections to the session stay few
