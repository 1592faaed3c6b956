"""One contract for both kinds of instance, over the same class of processes; and what is a ComfyUI's own.

A ComfyUI is stood in for by a script with its command line here: a real one is tried where one is installed.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backend_pool.managed.comfy_recipe import ComfyInstall, ComfyRecipe
from backend_pool.managed.engine_recipe import EngineRecipe
from backend_pool.managed.gpus import chosen
from backend_pool.managed.instances import Instances
from backend_pool.workers.install import FOLDER, Wishes
from proxy.base.errors import ConfigError, Unavailable
from proxy.base.listening import free_port, listens
from proxy.base.processes import followers, recorded, start_time
from proxy.base.settings import Settings

Make = Callable[[Path], Instances]

SCRIPT = """
import argparse, json, os, signal, socket, subprocess, sys
known = argparse.ArgumentParser()
known.add_argument("--port", type=int)
known.add_argument("--fail", action="store_true")
given, rest = known.parse_known_args()
if given.fail:
    sys.exit("RuntimeError: no kernel image is available")
with open(os.path.join(os.environ["TOLD"]), "w") as out:
    json.dump({"args": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}, out)
subprocess.Popen(["sleep", "600"])
listener = socket.create_server(("127.0.0.1", given.port))
signal.pause()
"""


def checkout(root: Path) -> Path:
    """What passes for a ComfyUI."""
    folder = root / "ComfyUI"
    if not folder.exists():
        (folder / "custom_nodes").mkdir(parents=True)
        (folder / "main.py").write_text(SCRIPT)
        (folder / "nodes.py").write_text("")
        (folder / "comfyui_version.py").write_text('__version__ = "0.8.0"\n')
    return folder


def comfy(root: Path, *arguments: str, gpus: str = "0,1", pack: Wishes | None = None) -> ComfyRecipe:
    what = ComfyInstall(checkout(root), Path(sys.executable), arguments, root / "public", pack)
    return ComfyRecipe(root / "backends", what, chosen(gpus, lambda _tool: None))


def comfyuis(root: Path) -> Instances:
    return Instances(comfy(root), root / "run", root / "logs", stop_timeout_s=2.0)


def engines(root: Path) -> Instances:
    settings = Settings.model_validate({"data_dir": root, "engine_args": ["--step-ms", "5"]})
    return Instances(EngineRecipe(settings, root / "run"), root / "run", root / "logs", stop_timeout_s=2.0)


@pytest.fixture(autouse=True)
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the script writes what it was given."""
    monkeypatch.setenv("TOLD", str(tmp_path / "told.json"))
    return tmp_path / "told.json"


async def serving(instances: Instances, name: str) -> str:
    """Its address, once it has one."""
    async with asyncio.timeout(30):
        while (url := await instances.address(name)) is None:
            assert instances.alive(name), instances.last_words(name)
            await asyncio.sleep(0.05)
    return url


async def gone(pids: set[int]) -> None:
    """None of them runs; one that nobody has reaped does not."""
    async with asyncio.timeout(10):
        while any(start_time(pid) is not None for pid in pids):
            await asyncio.sleep(0.02)


def pid(root: Path, name: str) -> int:
    daemon = recorded(root / "run" / f"{name}.json")
    assert daemon is not None
    return daemon.pid


@pytest.mark.parametrize(("make", "names"), [(engines, ["engine-1", "engine-2"]), (comfyuis, ["gpu-0", "gpu-1"])])
async def test_the_life_of_an_instance(tmp_path: Path, make: Make, names: list[str]) -> None:
    """Started, served, found by another starter with and without a record, stopped with what it has started."""
    first, other = names
    instances = make(tmp_path)
    try:
        assert not instances.alive(first) and await instances.address(first) is None
        await instances.start(first)
        url = await serving(instances, first)
        assert "@127.0.0.1:" in url or url.startswith("http://127.0.0.1:")
        started = pid(tmp_path, first)
        await instances.start(first)  # it runs
        again = make(tmp_path)
        assert again.recorded() == [first] and await again.address(first) == url
        (tmp_path / "run" / f"{first}.json").unlink()
        again.adopt(first)
        again.adopt(other)
        assert pid(tmp_path, first) == started and not again.alive(other)
        daemon = recorded(tmp_path / "run" / f"{first}.json")
        assert daemon is not None
        children = followers(daemon)
        await again.stop(first)
        await gone({started, *children})
        assert again.recorded() == []
    finally:
        await instances.forget_all()


async def test_what_it_left_behind_when_it_died_is_ended_before_the_next_start(tmp_path: Path) -> None:
    instances = comfyuis(tmp_path)
    try:
        await instances.start("gpu-0")
        await serving(instances, "gpu-0")
        daemon = recorded(tmp_path / "run" / "gpu-0.json")
        assert daemon is not None
        left = followers(daemon)
        assert len(left) == 1
        os.kill(daemon.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            while instances.alive("gpu-0"):
                await asyncio.sleep(0.02)
        assert followers(daemon) == left
        await instances.start("gpu-0")
        await serving(instances, "gpu-0")
        await gone(left)
    finally:
        await instances.forget_all()


async def test_a_comfyui_is_started_in_its_own_directories_and_sees_its_own_gpu(
    tmp_path: Path, told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMFY_CLUSTER_ADMIN_PASSWORD", "secret")
    monkeypatch.setenv("PYTHONPATH", "/ours")
    (tmp_path / "public" / "models" / "sams").mkdir(parents=True)
    pack = Wishes(server="http://127.0.0.1:8188", token="cwt_x", shared_data=tmp_path)
    recipe = comfy(tmp_path, "--highvram", pack=pack)
    instances = Instances(recipe, tmp_path / "run", tmp_path / "logs", stop_timeout_s=2.0)
    try:
        await instances.start("gpu-1")
        await serving(instances, "gpu-1")
        said = json.loads(told.read_text())
        base = tmp_path / "backends" / "gpu-1"
        assert said["args"][-1] == "--highvram" and said["cwd"] == str(tmp_path / "ComfyUI")
        assert said["args"][said["args"].index("--output-directory") + 1] == str(base / "output")
        assert said["env"]["CUDA_VISIBLE_DEVICES"] == "1"
        assert "COMFY_CLUSTER_ADMIN_PASSWORD" not in said["env"] and "PYTHONPATH" not in said["env"]
        paths = json.loads((base / "paths.yaml").read_text())
        assert paths["shared"]["sams"] == str(tmp_path / "public" / "models" / "sams")
        assert str(tmp_path / "public" / "models" / "unet") in paths["shared"]["diffusion_models"].splitlines()
        assert (base / "custom_nodes" / FOLDER / "config.json").stat().st_mode & 0o077 == 0
        worker = recipe.worker("gpu-1")
        assert worker is not None and worker.endswith(f"-{recipe.port('gpu-1')}")
        assert list((tmp_path / "ComfyUI" / "custom_nodes").iterdir()) == []
        assert not recipe.stale("gpu-1")
        assert comfy(tmp_path, pack=pack).stale("gpu-1")  # other arguments
    finally:
        await instances.forget_all()


async def test_a_port_that_somebody_else_has_by_now_is_changed(tmp_path: Path) -> None:
    """And a stranger who listens on its port is not taken for it."""
    recipe = comfy(tmp_path)
    port = recipe.reserve("gpu-0")
    assert recipe.reserve("gpu-0") == port
    assert recipe.reserve("gpu-1") != port
    with socket.create_server(("127.0.0.1", port)):
        assert not listens(port, {1}) and listens(port, {os.getpid()})
        assert recipe.reserve("gpu-0") != port
    assert free_port(but=()) > 0


async def test_the_last_words_of_one_that_does_not_start(tmp_path: Path) -> None:
    recipe = comfy(tmp_path, "--fail")
    instances = Instances(recipe, tmp_path / "run", tmp_path / "logs")
    await instances.start("gpu-0")
    async with asyncio.timeout(20):
        while instances.alive("gpu-0"):
            await asyncio.sleep(0.02)
    assert instances.last_words("gpu-0") == "RuntimeError: no kernel image is available"


async def test_what_cannot_be_made_is_said(tmp_path: Path) -> None:
    instances = comfyuis(tmp_path)
    (tmp_path / "backends").write_text("in the way")
    with pytest.raises(Unavailable, match="gpu-0 cannot be started"):
        await instances.start("gpu-0")


def test_what_an_operator_may_not_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--port=1"):
        comfy(tmp_path, "--port=1")
    (checkout(tmp_path) / "custom_nodes" / FOLDER).mkdir()
    with pytest.raises(ConfigError, match="worker-pack uninstall"):
        comfy(tmp_path)


def test_an_unknown_comfyui_is_a_stock_backend(tmp_path: Path) -> None:
    (checkout(tmp_path) / "comfyui_version.py").write_text('__version__ = "9.9.9"\n')
    recipe = comfy(tmp_path, pack=Wishes(server="http://127.0.0.1:1", token="cwt_x"))
    recipe.prepare("gpu-0")
    assert recipe.worker("gpu-0") is None
