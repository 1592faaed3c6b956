"""The process: start, ready line, URL file, signals, limits."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from backend_pool.engine.options import parse
from tests.engine.client import connect
from tests.engine.graphs import default_graph
from tests.engines import STOP_TIMEOUT_S


async def test_it_tells_its_url_and_ends_at_once_with_a_job_running(start: Any, tmp_path: Path) -> None:
    engine = start("--url-file", str(tmp_path / "url"), "--name", "gpu-7", "--step-ms", "60000")
    async with connect(engine.url) as client:
        assert (tmp_path / "url").read_text() == engine.url
        about = await client.get("/engine")
        assert (about["name"], about["pid"]) == ("gpu-7", engine.process.pid)
        await client.submit(default_graph())
        await client.until("executing", node="70")
        assert engine.stop() == 0


async def test_bodies_over_the_limit_get_413(start: Any) -> None:
    engine = start("--max-upload-size", "1")
    async with aiohttp.ClientSession() as http, http.post(f"{engine.url}/prompt", data=b" " * 1_000_000) as response:
        assert response.status == 400
    body = io.BytesIO(b" " * 1_048_577)
    async with aiohttp.ClientSession() as http, http.post(f"{engine.url}/prompt", data=body) as response:
        assert response.status == 413


@pytest.mark.parametrize("args", [["--port", "x"], ["--step-ms", "-1"], ["--vram-mb", "0"], ["--nope"]])
def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--base-dir", str(tmp_path), *args])
    assert ended.value.code == 2 and "usage:" in capsys.readouterr().err


def test_a_taken_port_is_said_without_a_stack_trace(start: Any, tmp_path: Path) -> None:
    port = start().url.rpartition(":")[2]
    command = [sys.executable, "-m", "backend_pool.engine", "--base-dir", str(tmp_path / "b"), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=STOP_TIMEOUT_S, check=False)
    assert done.returncode == 1 and "cannot start" in done.stderr and "Traceback" not in done.stderr


async def test_faults_are_off_unless_asked_for(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "backend_pool.engine", "--base-dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("Ready: ").strip()
        order = {"fault": "crash"}
        async with aiohttp.ClientSession() as http, http.post(f"{url}/engine/faults", json=order) as response:
            assert response.status == 403
    finally:
        process.terminate()
        assert process.wait(STOP_TIMEOUT_S) == 0
        assert process.stdout is not None
        process.stdout.close()


async def test_descriptors_return_after_many_clients(start: Any) -> None:
    engine = start()

    def open_files() -> int:
        return sum(1 for _ in Path(f"/proc/{engine.process.pid}/fd").iterdir())

    async def visit() -> None:
        for _ in range(20):
            async with connect(engine.url) as client:
                await client.get("/queue")

    await visit()
    before = open_files()
    await visit()
    async with connect(engine.url) as client:
        await client.get("/queue")
        assert open_files() <= before + 4
