"""The servers that the contract is held against. Besides its URL each brings a prompt that sends previews."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import start_cluster
from tests.contract import graphs
from tests.contract.graphs import Prompt, node
from tests.engines import start_engine
from tests.real_comfyui import start_real_comfyui

PROBE_PACK = '''
"""Stock ComfyUI sends previews only while it samples with a model; this node sends them without one."""
from PIL import Image
import comfy.utils


class ContractPreview:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "seed": ("INT", {"default": 0})}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    def run(self, image, seed):
        bar = comfy.utils.ProgressBar(3)
        for step in range(1, 4):
            bar.update_absolute(step, 3, ("JPEG", Image.new("RGB", (32, 32), (step * 60, 0, 0)), 512))
        return (image,)


NODE_CLASS_MAPPINGS = {"ContractPreview": ContractPreview}
'''


@dataclass(frozen=True)
class Server:
    """A running server. `previewing(seed)` is a prompt in which node "3" takes three steps and shows each."""

    name: str
    url: str
    base_dir: Path
    previewing: Callable[[int], Prompt]


@contextmanager
def engine(base_dir: Path) -> Iterator[Server]:
    """The embedded engine."""
    running = start_engine(base_dir)
    try:
        yield Server("engine", running.url, base_dir, _sampling)
    finally:
        running.stop()


@contextmanager
def comfyui(base_dir: Path) -> Iterator[Server]:
    """A real ComfyUI, or a skip that says what is missing."""
    running = start_real_comfyui(base_dir, custom_node=PROBE_PACK)
    try:
        yield Server("comfyui", running.url, base_dir, _probing)
    finally:
        running.stop()


@contextmanager
def proxy(base_dir: Path) -> Iterator[Server]:
    """What one user sees of a whole cluster over an embedded engine; the token in the path signs every request in."""
    with start_cluster(base_dir, "--engines", "1") as running:
        person = running.user("contract")
        yield Server("proxy", f"{running.url}/t/{person.token}", base_dir, _sampling)


def _probing(seed: int) -> Prompt:
    return {
        "1": graphs.empty_image(seed),
        "3": node("ContractPreview", image=["1", 0], seed=seed),
        "9": node("SaveImage", images=["3", 0], filename_prefix="previewed"),
    }


def _sampling(seed: int) -> Prompt:
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly-fp16.safetensors"),
        "2": node("CLIPTextEncode", text="a lighthouse", clip=["1", 1]),
        "3": node(
            "KSampler",
            model=["1", 0],
            positive=["2", 0],
            negative=["2", 0],
            latent_image=["4", 0],
            seed=seed,
            steps=3,
            cfg=7.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        "4": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "5": node("VAEDecode", samples=["3", 0], vae=["1", 2]),
        "9": node("SaveImage", images=["5", 0], filename_prefix="previewed"),
    }
