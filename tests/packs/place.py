"""Where node packs are tried: sessions that run a real ComfyUI, and a real ComfyUI of each backend level."""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.cluster import Cluster, Person
from tests.contract.graphs import Prompt, empty_image, node
from tests.real_comfyui import RealComfyUI, start_real_comfyui

PACKS = Path(__file__).parent.parent / "custom_nodes"
NAMES = ("notebook", "silent_save", "early_save", "telling", "broken_at_import")
MARKER = '''
"""A node that only this backend has, so that a job that uses it runs here."""


class {name}:
    @classmethod
    def INPUT_TYPES(cls):
        return {{"required": {{"image": ("IMAGE",)}}}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "through"

    def through(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {{"{name}": {name}}}
'''


@dataclass(frozen=True)
class Level:
    """How much a backend has of us; `marker` is the node that leads a job to it."""

    name: str
    marker: str

    def prompt(self, color: int, **last: object) -> Prompt:
        """A plain picture of that colour, led through this backend to a last node: class_type and further inputs."""
        inputs = {name: value for name, value in last.items() if name != "class_type"}
        picture = {"image" if last["class_type"] == "Telling" else "images": ["2", 0]}
        prompt = {
            "1": empty_image(color),
            "2": node(self.marker, image=["1", 0]),
            "3": node(str(last["class_type"]), **picture, **inputs),
        }
        if last["class_type"] == "Telling":
            prompt["4"] = node("SaveImage", images=["3", 0], filename_prefix="told")
        return prompt


STOCK = Level("stock", "OnStock")
WORKER = Level("worker", "OnWorker")
SHARING = Level("sharing", "OnSharing")
OFFERED_WITHIN_S = 60.0


def put_packs(folder: Path) -> None:
    """Copy the packs into a custom_nodes folder."""
    for name in NAMES:
        shutil.copytree(PACKS / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def start_backend(base_dir: Path, level: Level) -> RealComfyUI:
    """A real ComfyUI with the packs and that level's marker."""
    put_packs(base_dir / "custom_nodes")
    return start_real_comfyui(base_dir, custom_node=MARKER.format(name=level.marker))


def start_worker(base_dir: Path, level: Level, cluster: Cluster, *, shared: bool) -> RealComfyUI:
    """The same with the worker pack, which registers with the cluster; its files travel by HTTP or lie in place."""
    put_packs(base_dir / "custom_nodes")
    token = cluster.command("worker-pack", "token", "--name", level.marker).strip()
    shared_data = ["--shared-data", str(cluster.data_dir / "users")] if shared else []
    cluster.command(
        "worker-pack", "install", "--comfyui", os.environ["COMFYUI_DIR"],
        "--custom-nodes", str(base_dir / "custom_nodes"), "--server", cluster.url, "--token", token,
        "--name", level.marker, *shared_data,
    )  # fmt: skip
    return start_real_comfyui(base_dir, custom_node=MARKER.format(name=level.marker))


def wait_until_offered(cluster: Cluster, person: Person, marker: str) -> None:
    """Until the pool offers that node, which its backend alone has."""
    deadline = time.monotonic() + OFFERED_WITHIN_S
    while not httpx.get(f"{cluster.url}/t/{person.token}/object_info/{marker}", trust_env=False).json():
        assert time.monotonic() < deadline, f"No backend with {marker} came into the pool."
        time.sleep(0.2)
