"""The runtime as its host uses it: warmed once, served, cancelled, forked."""

import asyncio
import gc
import logging
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from proxy.base.errors import ConfigError
from tests.user_sessions.light.conftest import SECRET, serving, spec_in
from user_sessions.light.runtime import LightRuntime
from user_sessions.light.spool import PREFIX
from user_sessions.runtime import SECRET_HEADER, Runtime
from user_sessions.runtimes import make_runtime


async def test_it_serves_stops_and_leaves_nothing_open(folder: Path, runtime: LightRuntime) -> None:
    spec = spec_in(folder)
    async with serving(runtime, spec) as session, session.http.get("/") as response:
        assert response.status == 200
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    handlers = list(logging.getLogger().handlers)
    for _ in range(3):
        async with serving(runtime, spec) as session:
            assert stat.S_IMODE(spec.socket.stat().st_mode) == 0o600
            async with session.http.ws_connect("/ws") as ws:
                await ws.receive_json(timeout=10)
            async with session.http.get("/") as response:
                await response.read()
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert logging.getLogger().handlers == handlers
    assert len(asyncio.all_tasks()) == 1


async def test_a_browser_that_reads_nothing_does_not_hold_up_the_end(folder: Path, runtime: LightRuntime) -> None:
    spec = spec_in(folder)
    connector = aiohttp.UnixConnector(str(spec.socket))
    async with aiohttp.ClientSession("http://s", connector=connector, headers={SECRET_HEADER: SECRET}) as http:
        async with serving(runtime, spec):
            socket = await http.ws_connect("/ws")
        message = await socket.receive(timeout=20)  # `serving` has ended: the session did not wait for us
        assert message.type is aiohttp.WSMsgType.TEXT
        message = await socket.receive(timeout=20)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)


async def test_rests_of_a_killed_upload_are_gone_before_it_serves(folder: Path, runtime: LightRuntime) -> None:
    spec = spec_in(folder)
    (spec.directories.input / f"{PREFIX}12").write_text("half")
    async with serving(runtime, spec):
        assert list(spec.directories.input.iterdir()) == []


def test_it_is_found_by_its_name(folder: Path) -> None:
    runtime: Runtime = make_runtime("light", {"frontend_cache": str(folder / "cache")})
    assert isinstance(runtime, LightRuntime)
    assert runtime.name == "light"


def test_a_frontend_without_an_index_is_a_configuration_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"index\.html"):
        LightRuntime(None, folder).warm()


def test_a_cache_that_cannot_be_made_is_survived(folder: Path) -> None:
    (folder / "file").write_text("not a directory")
    (folder / "web").mkdir()
    (folder / "web/index.html").write_text("x" * 2000)
    LightRuntime(folder / "file" / "cache", folder / "web").warm()


def test_forked_children_serve_side_by_side(folder: Path) -> None:
    command = [sys.executable, "-m", f"{__package__}.fork_server", str(folder), "3"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as zygote:
        assert zygote.stdout is not None and zygote.stdin is not None
        sockets = zygote.stdout.readline().split()
        assert len(sockets) == 3
        for path in sockets:
            assert ask(Path(path)).startswith(b"HTTP/1.1 200")
        zygote.stdin.close()
        assert zygote.wait(20) == 0


def ask(path: Path) -> bytes:
    """GET / as soon as the socket accepts."""
    deadline = time.monotonic() + 20
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            break
        except OSError:
            connection.close()
            assert time.monotonic() < deadline
            time.sleep(0.01)  # another process' socket: there is no event to wait for
    with connection:
        connection.settimeout(20)
        head = f"GET / HTTP/1.1\r\nHost: x\r\n{SECRET_HEADER}: {SECRET}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer
