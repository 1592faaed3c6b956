"""Picture nodes that move pixels: sizes, batches, borders. They compute, they do not pretend."""

import math

import numpy as np

from backend_pool.engine.job import Job
from backend_pool.engine.nodes.registry import MAX_RESOLUTION, Inputs, Node, combo, integer, link, number
from backend_pool.engine.nodes.resize import METHODS, resize
from backend_pool.engine.nodes.values import Images, Masks, room_for


def _empty(_job: Job, width: int, height: int, batch_size: int = 1, color: int = 0) -> tuple[Images]:
    room_for(width * height * batch_size)
    rgb = np.array([(color >> shift) & 0xFF for shift in (16, 8, 0)], dtype=np.float32) / np.float32(255)
    return (np.broadcast_to(rgb, (batch_size, height, width, 3)),)


def _scale(_job: Job, image: Images, upscale_method: str, *, width: int, height: int, crop: str) -> tuple[Images]:
    old_height, old_width = image.shape[1:3]
    if width == 0 and height == 0:
        return (image,)
    width = width or max(1, round(old_width * height / old_height))
    height = height or max(1, round(old_height * width / old_width))
    return (resize(image, width, height, upscale_method, crop),)


def _scale_by(_job: Job, image: Images, upscale_method: str, scale_by: float) -> tuple[Images]:
    height, width = image.shape[1:3]
    return (resize(image, round(width * scale_by), round(height * scale_by), upscale_method),)


def _scale_to_pixels(
    _job: Job, image: Images, upscale_method: str, megapixels: float, resolution_steps: int
) -> tuple[Images]:
    height, width = image.shape[1:3]
    factor = math.sqrt(megapixels * 1024 * 1024 / (width * height))
    new_width, new_height = (round(side * factor / resolution_steps) * resolution_steps for side in (width, height))
    return (resize(image, new_width, new_height, upscale_method),)


def _invert(_job: Job, image: Images) -> tuple[Images]:
    return (1 - image,)


def _crop(_job: Job, image: Images, *, width: int, height: int, x: int, y: int) -> tuple[Images]:
    x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return (image[:, y : y + height, x : x + width],)


def _batch(_job: Job, image1: Images, image2: Images) -> tuple[Images]:
    channels = max(image1.shape[-1], image2.shape[-1])
    first, second = (_with_channels(image, channels) for image in (image1, image2))
    height, width = first.shape[1:3]
    if second.shape[1:3] != (height, width):
        second = resize(second, width, height, "bilinear", "center")
    room_for(width * height * (len(first) + len(second)))
    return (np.concatenate([first, second]),)


def _with_channels(image: Images, channels: int) -> Images:
    """Add an opaque alpha where one is missing."""
    missing = channels - image.shape[-1]
    return np.pad(image, [(0, 0)] * 3 + [(0, missing)], constant_values=1) if missing else image


def _repeat(_job: Job, image: Images, amount: int) -> tuple[Images]:
    room_for(math.prod(image.shape[:3]) * amount)
    return (np.tile(image, (amount, 1, 1, 1)),)


def _from_batch(_job: Job, image: Images, batch_index: int, length: int) -> tuple[Images]:
    start = min(len(image) - 1, batch_index)
    return (image[start : start + length],)


def _rebatch(_job: Job, images: list[Images], batch_size: list[int]) -> tuple[list[Images]]:
    frames = [frame[None] for image in images for frame in image]
    size = batch_size[0]
    return ([np.concatenate(frames[start : start + size]) for start in range(0, len(frames), size)],)


def _pad(
    _job: Job, image: Images, *, left: int, top: int, right: int, bottom: int, feathering: int
) -> tuple[Images, Masks]:
    batch, height, width, _ = image.shape
    room_for(batch * (height + top + bottom) * (width + left + right))
    padded = np.pad(image, [(0, 0), (top, bottom), (left, right), (0, 0)], constant_values=0.5)
    mask = np.ones(padded.shape[1:3], dtype=np.float32)
    mask[top : top + height, left : left + width] = _feather(height, width, (left, top, right, bottom), feathering)
    return padded, mask[None]


def _feather(height: int, width: int, borders: tuple[int, int, int, int], feathering: int) -> Masks:
    """0 inside the old picture, rising to 1 towards the sides that grew."""
    if feathering <= 0 or feathering * 2 >= min(height, width):
        return np.zeros((height, width), dtype=np.float32)
    left, top, right, bottom = borders
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    distance = np.full((height, width), max(height, width))
    for grew, away in ((top, rows), (bottom, height - rows), (left, columns), (right, width - columns)):
        if grew:
            distance = np.minimum(distance, away)
    part = np.clip((feathering - distance) / feathering, 0, 1).astype(np.float32)
    return part * part


IMAGE = {"image": ("IMAGE",)}
METHOD: Inputs = {"upscale_method": (METHODS,)}
POST = "comfy_extras.nodes_post_processing"
EXTRA = "comfy_extras.nodes_images"

NODES = (
    Node(
        "EmptyImage",
        _empty,
        {
            "width": integer(512, 1, MAX_RESOLUTION, 1),
            "height": integer(512, 1, MAX_RESOLUTION, 1),
            "batch_size": integer(1, 1, 4096),
            "color": integer(0, 0, 0xFFFFFF, 1, display="color"),
        },
        outputs=("IMAGE",),
        category="image",
    ),
    Node(
        "ImageScale",
        _scale,
        IMAGE
        | dict(METHOD)
        | {
            "width": integer(512, 0, MAX_RESOLUTION, 1),
            "height": integer(512, 0, MAX_RESOLUTION, 1),
            "crop": (["disabled", "center"],),
        },
        outputs=("IMAGE",),
        category="image/upscaling",
        display_name="Upscale Image",
    ),
    Node(
        "ImageScaleBy",
        _scale_by,
        IMAGE | dict(METHOD) | {"scale_by": number(1.0, 0.01, 8.0)},
        outputs=("IMAGE",),
        category="image/upscaling",
        display_name="Upscale Image By",
    ),
    Node(
        "ImageScaleToTotalPixels",
        _scale_to_pixels,
        {
            "image": link("IMAGE"),
            "upscale_method": combo(METHODS),
            "megapixels": number(1.0, 0.01, 16.0),
            "resolution_steps": integer(1, 1, 256),
        },
        outputs=("IMAGE",),
        category="image/upscaling",
        display_name="Scale Image to Total Pixels",
        module=POST,
        v3=True,
    ),
    Node("ImageInvert", _invert, IMAGE, outputs=("IMAGE",), category="image", display_name="Invert Image"),
    Node(
        "ImageBatch",
        _batch,
        {"image1": ("IMAGE",), "image2": ("IMAGE",)},
        outputs=("IMAGE",),
        category="image",
        display_name="Batch Images",
        deprecated=True,
    ),
    Node(
        "ImageCrop",
        _crop,
        {
            "image": link("IMAGE"),
            "width": integer(512, 1, MAX_RESOLUTION, 1),
            "height": integer(512, 1, MAX_RESOLUTION, 1),
            "x": integer(0, 0, MAX_RESOLUTION, 1),
            "y": integer(0, 0, MAX_RESOLUTION, 1),
        },
        outputs=("IMAGE",),
        category="image/transform",
        display_name="Image Crop",
        module=EXTRA,
        v3=True,
    ),
    Node(
        "RepeatImageBatch",
        _repeat,
        {"image": link("IMAGE"), "amount": integer(1, 1, 4096)},
        outputs=("IMAGE",),
        category="image/batch",
        module=EXTRA,
        v3=True,
    ),
    Node(
        "ImageFromBatch",
        _from_batch,
        {"image": link("IMAGE"), "batch_index": integer(0, 0, 4095), "length": integer(1, 1, 4096)},
        outputs=("IMAGE",),
        category="image/batch",
        module=EXTRA,
        v3=True,
    ),
    Node(
        "RebatchImages",
        _rebatch,
        {"images": link("IMAGE"), "batch_size": integer(1, 1, 4096)},
        outputs=("IMAGE",),
        category="image/batch",
        display_name="Rebatch Images",
        module="comfy_extras.nodes_rebatch",
        v3=True,
        input_is_list=True,
        output_is_list=(True,),
    ),
    Node(
        "ImagePadForOutpaint",
        _pad,
        IMAGE
        | {side: integer(0, 0, MAX_RESOLUTION, 8) for side in ("left", "top", "right", "bottom")}
        | {"feathering": integer(40, 0, MAX_RESOLUTION, 1)},
        outputs=("IMAGE", "MASK"),
        category="image",
        display_name="Pad Image for Outpainting",
    ),
)
