"""Backends whose processes are kept for the server, as an operator starts them: by an agent, and real ones by `up`."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
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
from tests.backend_pool.graphs import sampled, saved
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
SLOW = """
import time


class Slow:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "seconds": ("INT", {})}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    def run(self, image, seconds):
        time.sleep(seconds)
        return (image,)


NODE_CLASS_MAPPINGS = {"Slow": Slow}
"""


def slow_picture(color: int) -> dict[str, Any]:
    """Takes long enough to be killed meanwhile."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": color}},
        "3": {"class_type": "Slow", "inputs": {"image": ["1", 0], "seconds": 5}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "slow"}},
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
    job = await becomes(client, await queued(client, prompt), "succeeded", "failed", "cancelled")
    return str(job["state"])


async def queued(client: httpx.AsyncClient, prompt: dict[str, Any]) -> str:
    """Queue it; its id."""
    return str((await client.post("/prompt", json={"prompt": prompt})).json()["prompt_id"])


async def becomes(client: httpx.AsyncClient, prompt_id: str, *states: str) -> dict[str, Any]:
    """Wait until the job is in one of these; what the API tells of it."""
    async with asyncio.timeout(WAIT_S):
        while True:
            job: dict[str, Any] = (await client.get(f"/cluster/api/v1/jobs/{prompt_id}")).json()
            if job["state"] in states:
                return job
            await asyncio.sleep(0.1)


@contextlib.contextmanager
def agent(
    folder: Path, cluster: Cluster, token: str, what: Sequence[str] = ("--engines", "1")
) -> Iterator[subprocess.Popen[str]]:
    """`comfy-cluster agent` with one engine; what it started is left to its successor when it is killed."""
    command = [sys.executable, "-m", "proxy", "agent", "--server", cluster.url, "--name", "box", *what]
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
    """It outlives its agent's kill -9 with its job, and the next one puts it to sleep."""
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
                    prompt_id = await queued(client, sampled(steps=600))
                    await becomes(client, prompt_id, "running")
                    before = engines(box)
                with agent(box, cluster, token) as successor:  # the first one was killed
                    assert (await becomes(client, prompt_id, "succeeded"))["attempt"] == 1
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


@pytest.mark.comfyui
@pytest.mark.skipif(not configured(), reason=WHY_SKIPPED)
@pytest.mark.timeout(600)
async def test_an_agents_real_comfyui_is_killed_hangs_and_changes_its_agent(tmp_path: Path) -> None:
    """No job is lost to any of it, and the one that ran while the agent was killed is not run twice."""
    box = tmp_path / "box"
    nodes = box / "public" / "custom_nodes"
    nodes.mkdir(parents=True)
    (nodes / "slow.py").write_text(SLOW)
    what = ("--gpus", "cpu", "--comfyui", os.environ["COMFYUI_DIR"], "--comfyui-python", os.environ["COMFYUI_PYTHON"])
    env = {**QUICK, "COMFY_CLUSTER_BACKEND_DOWN_AFTER_S": "4", "COMFY_CLUSTER_PROBE_TIMEOUT_S": "2"}
    try:
        with start_cluster(tmp_path, "--engines", "0", env=env) as cluster:
            admin = cluster.user("boss", admin=True)
            token = worker_token(cluster)
            async with cluster.client(admin) as client:
                with agent(box, cluster, token, what):
                    found = await eventually(client, lambda backend: backend["health"] in ("up", "asleep"))
                    assert (found["name"], found["level"]) == ("box-gpu-cpu", "worker pack")
                    for color, number in enumerate((signal.SIGKILL, signal.SIGSTOP)):
                        prompt_id = await queued(client, slow_picture(color))
                        await becomes(client, prompt_id, "running")
                        (before,) = instances(box)
                        os.kill(before, number)
                        job = await becomes(client, prompt_id, "succeeded", "failed", "cancelled")
                        assert (job["state"], job["attempt"]) == ("succeeded", 2), job
                        assert before not in instances(box)
                    prompt_id = await queued(client, slow_picture(2))
                    await becomes(client, prompt_id, "running")
                    running = instances(box)
                with agent(box, cluster, token, what) as successor:  # the first one was killed
                    job = await becomes(client, prompt_id, "succeeded", "failed", "cancelled")
                    assert (job["state"], job["attempt"]) == ("succeeded", 1), job
                    await eventually(client, lambda backend: backend["health"] == "asleep")
                    assert len(running) == 1 and instances(box) == set()
                    successor.send_signal(signal.SIGTERM)
                    assert successor.wait(STOP_TIMEOUT_S) == 0
    finally:
        clean(box)


def comfyuis(cluster: Cluster) -> set[int]:
    return instances(cluster.data_dir)


def instances(folder: Path) -> set[int]:
    """ComfyUIs of that data directory."""
    return {pid for pid, command in processes_of(folder).items() if "main.py" in command}
