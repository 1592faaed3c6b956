"""Mask nodes: conversions, solid, invert, grow."""

import numpy as np

from backend_pool.engine.job import Job
from backend_pool.engine.nodes.registry import MAX_RESOLUTION, Node, combo, integer, link, number
from backend_pool.engine.nodes.values import Images, Masks, room_for

CHANNELS = ["red", "green", "blue", "alpha"]
MODULE = "comfy_extras.nodes_mask"


def _to_image(_job: Job, mask: Masks) -> tuple[Images]:
    return (np.repeat(mask.reshape((-1, *mask.shape[-2:]))[..., None], 3, axis=-1),)


def _to_mask(_job: Job, image: Images, channel: str) -> tuple[Masks]:
    return (image[..., CHANNELS.index(channel)],)


def _solid(_job: Job, value: float, width: int, height: int) -> tuple[Masks]:
    room_for(width * height)
    return (np.full((1, height, width), value, dtype=np.float32),)


def _invert(_job: Job, mask: Masks) -> tuple[Masks]:
    return (1 - mask,)


def _grow(job: Job, mask: Masks, expand: int, tapered_corners: bool) -> tuple[Masks]:
    """Dilate (or erode, when negative) by one pixel at a time; corners stay round when tapered."""
    grown = mask.reshape((-1, *mask.shape[-2:]))
    better = np.maximum if expand > 0 else np.minimum
    for _ in range(min(abs(expand), max(grown.shape[1:]))):
        job.check()
        wide = np.pad(grown, [(0, 0), (1, 1), (1, 1)], mode="edge")
        height, width = grown.shape[1:]
        shifts = [(y, x) for y in range(3) for x in range(3) if not tapered_corners or y == 1 or x == 1]
        for y, x in shifts:
            grown = better(grown, wide[:, y : y + height, x : x + width])
    return (grown,)


NODES = (
    Node(
        "MaskToImage",
        _to_image,
        {"mask": link("MASK")},
        outputs=("IMAGE",),
        category="mask",
        display_name="Convert Mask to Image",
        module=MODULE,
        v3=True,
    ),
    Node(
        "ImageToMask",
        _to_mask,
        {"image": link("IMAGE"), "channel": combo(CHANNELS)},
        outputs=("MASK",),
        category="mask",
        display_name="Convert Image to Mask",
        module=MODULE,
        v3=True,
    ),
    Node(
        "SolidMask",
        _solid,
        {
            "value": number(1.0, 0.0, 1.0),
            "width": integer(512, 1, MAX_RESOLUTION, 1),
            "height": integer(512, 1, MAX_RESOLUTION, 1),
        },
        outputs=("MASK",),
        category="mask",
        module=MODULE,
        v3=True,
    ),
    Node("InvertMask", _invert, {"mask": link("MASK")}, outputs=("MASK",), category="mask", module=MODULE, v3=True),
    Node(
        "GrowMask",
        _grow,
        {
            "mask": link("MASK"),
            "expand": integer(0, -MAX_RESOLUTION, MAX_RESOLUTION, 1),
            "tapered_corners": ("BOOLEAN", {"default": True}),
        },
        outputs=("MASK",),
        category="mask",
        display_name="Grow Mask",
        module=MODULE,
        v3=True,
    ),
)
