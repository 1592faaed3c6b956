"""Nodes that read uploaded pictures: image and mask, orientation and alpha as ComfyUI reads them."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from backend_pool.engine.job import Job
from backend_pool.engine.nodes.registry import Inputs, Node
from backend_pool.engine.nodes.values import Images, Masks, room_for
from proxy.base.pictures import open_picture

CHANNELS = ["alpha", "red", "green", "blue"]
NO_MASK = (64, 64)


def _load(job: Job, image: str) -> tuple[Images, Masks]:
    images: list[Images] = []
    masks: list[Masks] = []
    with open_picture(_path(job, image)) as file:
        for frame in ImageSequence.Iterator(file):
            upright = _upright(frame)
            if images and upright.size != images[0].shape[1::-1]:
                continue  # other sizes inside one file (icons) are left out, as in ComfyUI
            room_for(upright.width * upright.height * (len(images) + 1))
            images.append(_floats(upright.convert("RGB")))
            masks.append(_mask(upright))
            if file.format == "MPO":
                break
    return np.stack(images), np.stack(masks)


def _load_mask(job: Job, image: str, channel: str) -> tuple[Masks]:
    with open_picture(_path(job, image)) as file:
        picture = _upright(file).convert("RGBA")
    values = _floats(picture.getchannel(channel[0].upper()))
    return ((1 - values if channel == "alpha" else values)[None],)


def _fingerprint(job: Job, image: Any, channel: Any = None) -> str:
    return hashlib.sha256(_path(job, image).read_bytes()).hexdigest()


def _path(job: Job, name: str) -> Path:
    path = job.directories.find(name)
    if path is None:
        raise FileNotFoundError(f"Invalid image file: {name}")
    return path


def _upright(frame: Image.Image) -> Image.Image:
    """Turned as its EXIF says; 16 and 32 bit grey brought to 8."""
    turned = ImageOps.exif_transpose(frame)
    if turned.mode.startswith("I"):
        values = np.asarray(turned, dtype=np.float32)
        scale = 257 if values.max(initial=0) > 255 else 1
        return Image.fromarray(np.clip(values / scale, 0, 255).astype(np.uint8))
    return turned


def _mask(picture: Image.Image) -> Masks:
    """1 where the picture is transparent; a small empty mask when it has no alpha."""
    if "A" in picture.getbands():
        return 1 - _floats(picture.getchannel("A"))
    if picture.mode == "P" and "transparency" in picture.info:
        return 1 - _floats(picture.convert("RGBA").getchannel("A"))
    return np.zeros(NO_MASK, dtype=np.float32)


def _floats(picture: Image.Image) -> Images:
    return np.asarray(picture, dtype=np.float32) / np.float32(255)


UPLOADED: Inputs = {"image": (lambda shelf: shelf.input_images(), {"image_upload": True})}

NODES = (
    Node(
        "LoadImage",
        _load,
        UPLOADED,
        outputs=("IMAGE", "MASK"),
        category="image",
        display_name="Load Image",
        fingerprint=_fingerprint,
    ),
    Node(
        "LoadImageMask",
        _load_mask,
        {"image": (lambda shelf: shelf.input_files(), {"image_upload": True}), "channel": (CHANNELS,)},
        outputs=("MASK",),
        category="mask",
        display_name="Load Image (as Mask)",
        fingerprint=_fingerprint,
    ),
    Node(
        "LoadImageOutput",
        _load,
        {
            "image": (
                "COMBO",
                {
                    "image_upload": True,
                    "image_folder": "output",
                    "remote": {
                        "route": "/internal/files/output",
                        "refresh_button": True,
                        "control_after_refresh": "first",
                    },
                },
            )
        },
        outputs=("IMAGE", "MASK"),
        category="image",
        display_name="Load Image (from Outputs)",
        fingerprint=_fingerprint,
        experimental=True,
    ),
)
