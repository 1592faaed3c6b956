"""What flows between nodes: pictures as float32 arrays, models and latents as descriptions of what they stand for."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from backend_pool.engine.job import OutOfMemoryError

Images: TypeAlias = npt.NDArray[np.float32]
"""Batch, height, width, channel; 0 to 1."""
Masks: TypeAlias = npt.NDArray[np.float32]
"""Batch, height, width; 0 to 1."""

PIXEL_LIMIT = 64_000_000


@dataclass(frozen=True)
class ModelRef:
    """A MODEL, CLIP or VAE: which file it came from and what was done to it (LoRAs, shifts)."""

    folder: str
    name: str
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conditioning:
    """Encoded text."""

    text: str


@dataclass(frozen=True)
class Scene:
    """All that decides what is painted; equal scenes give equal pixels."""

    prompt: str
    negative: str
    seed: int
    model: str
    variant: str


@dataclass(frozen=True)
class Latent:
    """A LATENT: size in pixels, what was sampled into it, and the picture it began with, if any."""

    width: int
    height: int
    batch: int
    scene: Scene | None = None
    strength: float = 1.0
    """How much of `base` the sampling replaced."""
    base: Images | None = None


def room_for(pixels: int) -> None:
    """Fail as a full graphics card would before asking the machine for more memory than it should give."""
    if pixels > PIXEL_LIMIT:
        gib = pixels * 12 / 1024**3
        raise OutOfMemoryError(f"Allocation of {gib:.2f} GiB would exceed allowed memory.")
