"""A backend of ComfyUI 0.3.64, which has no /api/jobs and shows API tokens in its /queue: its users see neither.

COMFYUI_OLD_DIR names its checkout.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.backend_pool.rig import engine_get
from tests.cluster import start_cluster
from tests.contract import graphs
from tests.contract.wire import FLAGS
from tests.real_comfyui import start_real_comfyui
from tests.system.people import Someone

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]
KEY = "s3cr3t-of-ann"


@pytest.fixture
async def ann(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, Someone]]:
    """The backend's address, and a user of a server that has only that one."""
    if "COMFYUI_OLD_DIR" not in os.environ:
        pytest.skip("no old ComfyUI: set COMFYUI_OLD_DIR to a checkout of 0.3.64")
    monkeypatch.setenv("COMFYUI_DIR", os.environ["COMFYUI_OLD_DIR"])
    backend = await asyncio.to_thread(start_real_comfyui, tmp_path / "old")
    arguments = ("--engines", "0", "--backend", backend.url)
    cluster = await asyncio.to_thread(start_cluster, tmp_path, *arguments)
    try:
        someone = Someone(cluster, await asyncio.to_thread(cluster.user, "ann"))
        yield backend.url, someone
        await someone.comfy.close()
    finally:
        await asyncio.to_thread(cluster.stop)
        await asyncio.to_thread(cluster.clean)
        await asyncio.to_thread(backend.stop)


async def test_it_is_like_a_new_one(ann: tuple[str, Someone]) -> None:
    backend, someone = ann
    comfy = someone.comfy
    async with comfy.socket("tab", FLAGS) as socket:
        long = graphs.long_chain(5001)
        running = await comfy.submit(long, "tab", extra_data={"api_key_comfy_org": KEY})
        await socket.until(lambda frame: frame.kind == "executing")
        waiting = await comfy.submit(graphs.saved(5002), "tab", extra_data={"api_key_comfy_org": KEY})
        shown = (await comfy.get("/queue")).body + (await comfy.get("/api/jobs")).body
        assert running.encode() in shown and waiting.encode() in shown and KEY.encode() not in shown
        assert KEY in str(await engine_get(backend, "/queue"))  # which is why nobody but the proxy may ask there
        await comfy.post("/interrupt")
        assert (await socket.job(running))[-2].kind == "execution_interrupted"
        assert (await socket.job(waiting))[-2].kind == "execution_success"
    jobs = {job["id"]: job["status"] for job in (await comfy.get("/api/jobs")).json()["jobs"]}
    assert jobs == {running: "cancelled", waiting: "completed"}
    assert KEY not in str((await comfy.get("/history")).json())
    again = await someone.runs(graphs.saved(5002))
    assert (await comfy.history(again))["outputs"] == (await comfy.history(waiting))["outputs"]
