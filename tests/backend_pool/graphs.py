"""Prompts for the pool's tests."""

import random
from typing import Any

from backend_pool.comfy.result import Result
from tests.engine.graphs import Graph, node

PICTURE = Result({"2": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}})
"""What a job that saved one picture ends with."""


def saved(color: int | None = None, prefix: str = "ComfyUI", **empty: Any) -> Graph:
    """An image saved; without a colour one that no cache knows."""
    chosen = random.randrange(1 << 24) if color is None else color
    sizes: dict[str, Any] = {"width": 16, "height": 16, "batch_size": 1} | empty
    return {
        "1": node("EmptyImage", color=chosen, **sizes),
        "2": node("SaveImage", images=["1", 0], filename_prefix=prefix),
    }


def previewed(color: int | None = None) -> Graph:
    """An image shown from temp."""
    return {"1": saved(color)["1"], "2": node("PreviewImage", images=["1", 0])}


def loaded(image: str, prefix: str = "copy") -> Graph:
    """One of the user's files, inverted and saved."""
    return {
        "1": node("LoadImage", image=image),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("SaveImage", images=["2", 0], filename_prefix=prefix),
    }


def sampled(steps: int = 8, seed: int | None = None, prefix: str = "ComfyUI") -> Graph:
    """A sampler that reports each step, for jobs that something happens to."""
    chosen = random.randrange(1 << 30) if seed is None else seed
    return {
        "4": node("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly-fp16.safetensors"),
        "5": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "6": node("CLIPTextEncode", text="a bottle", clip=["4", 1]),
        "3": node(
            "KSampler",
            model=["4", 0],
            seed=chosen,
            steps=steps,
            cfg=8,
            sampler_name="euler",
            scheduler="normal",
            positive=["6", 0],
            negative=["6", 0],
            latent_image=["5", 0],
            denoise=1,
        ),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0], filename_prefix=prefix),
    }
