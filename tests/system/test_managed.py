"""Backends whose processes are kept for the server, as an operator starts them: by an agent, and real ones by `up`."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend_pool.workers.tokens import create_now
from proxy.agent_process import Machine, run_agent
from proxy.base.database import Database, sqlite_url
from proxy.base.errors import ConfigError
from proxy.base.listening import free_port
from proxy.base.settings import Settings
from tests.backend_pool.graphs import saved
from tests.cluster import STOP_TIMEOUT_S, Cluster, clean, environment, processes_of, start_cluster
from tests.real_comfyui import WHY_SKIPPED, configured

WAIT_S = 90.0
QUICK = {
    "COMFY_CLUSTER_HEARTBEAT_INTERVAL_S": "0.3",
    "COMFY_CLUSTER_PROBE_INTERVAL_S": "0.3",
    "COMFY_CLUSTER_JOB_POLL_S": "0.3",
    "COMFY_CLUSTER_MANAGED_IDLE_S": "1",
}
PICTURE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "woken"}},
}


async def eventually(client: httpx.AsyncClient, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until the only backend is so."""
    async with asyncio.timeout(WAIT_S):
        while True:
            found = (await client.get("/cluster/api/v1/admin/backends")).json()["backends"]
            if len(found) == 1 and holds(found[0]):
                backend: dict[str, Any] = found[0]
                return backend
            await asyncio.sleep(0.1)


async def is_run(client: httpx.AsyncClient, prompt: dict[str, Any]) -> str:
    """Queue it and wait for its end; the state."""
    prompt_id = (await client.post("/prompt", json={"prompt": prompt})).json()["prompt_id"]
    async with asyncio.timeout(WAIT_S):
        while True:
            state: str = (await client.get(f"/cluster/api/v1/jobs/{prompt_id}")).json()["state"]
            if state in ("succeeded", "failed", "cancelled"):
                return state
            await asyncio.sleep(0.1)


@contextlib.contextmanager
def agent(folder: Path, cluster: Cluster, token: str) -> Iterator[subprocess.Popen[str]]:
    """`comfy-cluster agent` with one engine; what it started is left to its successor when it is killed."""
    command = [sys.executable, "-m", "proxy", "agent", "--server", cluster.url, "--engines", "1", "--name", "box"]
    with (folder.parent / "agent.log").open("a") as log:
        process = subprocess.Popen(
            [*command, "--data-dir", str(folder)],
            stdout=log,
            stderr=log,
            text=True,
            env=environment({**QUICK, "COMFY_CLUSTER_TOKEN": token}),
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(STOP_TIMEOUT_S)


def worker_token(cluster: Cluster) -> str:
    """As `worker-pack token` makes one."""
    db = Database(sqlite_url(cluster.data_dir / "cluster.db"))
    try:
        return create_now(db, "box")
    finally:
        db.close()


def engines(folder: Path) -> set[int]:
    return {pid for pid, command in processes_of(folder).items() if "backend_pool.engine" in command}


async def test_an_agents_instance_joins_sleeps_and_is_woken_by_a_job(tmp_path: Path) -> None:
    """It outlives its agent's kill -9, and the next one ends it."""
    box = tmp_path / "box"
    try:
        with start_cluster(tmp_path, "--engines", "0", env=QUICK) as cluster:
            admin = cluster.user("boss", admin=True)
            token = worker_token(cluster)
            async with cluster.client(admin) as client:
                with agent(box, cluster, token):
                    found = await eventually(client, lambda backend: backend["health"] == "up")
                    assert found["name"] == "box-engine-1"
                    await eventually(client, lambda backend: backend["health"] == "asleep")
                    assert engines(box) == set()
                    assert await is_run(client, saved()) == "succeeded"
                    await eventually(client, lambda backend: backend["health"] == "up")
                    before = engines(box)
                with agent(box, cluster, token) as successor:  # the first one was killed
                    await eventually(client, lambda backend: backend["health"] == "asleep")
                    assert len(before) == 1 and engines(box) == set()
                    successor.send_signal(signal.SIGTERM)
                    assert successor.wait(STOP_TIMEOUT_S) == 0
                assert processes_of(box) == {}
                await eventually(client, lambda backend: "not been heard of" in str(backend["error"]))
    finally:
        clean(box)


def test_an_agent_without_a_workers_token_is_not_started(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no worker's token"):
        run_agent(Settings.model_validate({"data_dir": tmp_path / "box"}), Machine("http://127.0.0.1:9", "nope"))
    assert not (tmp_path / "box").exists()


@pytest.mark.comfyui
@pytest.mark.skipif(not configured(), reason=WHY_SKIPPED)
async def test_a_real_comfyui_sleeps_is_woken_by_a_job_and_outlives_the_proxy(tmp_path: Path) -> None:
    """`up --gpus cpu`: started once to learn what it offers, asleep, woken, adopted after kill -9, gone at the end."""
    env = {
        **QUICK,
        "COMFY_CLUSTER_MANAGED_IDLE_S": "4",
        "COMFY_CLUSTER_BACKEND_COMFYUI": os.environ["COMFYUI_DIR"],
        "COMFY_CLUSTER_BACKEND_PYTHON": os.environ["COMFYUI_PYTHON"],
    }
    port = ["--port", str(free_port())]  # where the worker pack of the first one's ComfyUI finds the second one
    first = start_cluster(tmp_path, "--gpus", "cpu", *port, env=env)
    try:
        admin = first.user("boss", admin=True)
        async with first.client(admin) as client:
            found = await eventually(client, lambda backend: backend["health"] == "up")
            assert (found["name"], found["level"]) == ("gpu-cpu", "worker pack")
            await eventually(client, lambda backend: backend["health"] == "asleep")
            assert comfyuis(first) == set()
            assert await is_run(client, PICTURE) == "succeeded"
        before = comfyuis(first)
        first.kill()
        assert len(before) == 1 and comfyuis(first) == before
        with start_cluster(
            tmp_path, "--gpus", "cpu", *port, env={**env, "COMFY_CLUSTER_MANAGED_IDLE_S": "0"}
        ) as second:
            async with second.client(admin) as client:
                assert await is_run(client, PICTURE) == "succeeded"
            assert comfyuis(second) == before
            assert second.stop() == 0
            assert second.processes() == {}
    finally:
        first.clean()


def comfyuis(cluster: Cluster) -> set[int]:
    return {pid for pid, command in cluster.processes().items() if "main.py" in command}
