"""Picture nodes that change colours: blur, sharpen, blend, quantize. Batches pass frame by frame."""

import math

import numpy as np
from PIL import Image

from backend_pool.engine.job import Job
from backend_pool.engine.nodes.registry import Node, combo, integer, link, number
from backend_pool.engine.nodes.resize import resize
from backend_pool.engine.nodes.values import Images
from backend_pool.engine.pictures import to_bytes

BLENDS = ["normal", "multiply", "screen", "overlay", "soft_light", "difference"]
DITHERS = ["none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16"]
MODULE = "comfy_extras.nodes_post_processing"


def _blur(_job: Job, image: Images, blur_radius: int, sigma: float) -> tuple[Images]:
    return (_blurred(image, blur_radius, sigma),)


def _sharpen(_job: Job, image: Images, sharpen_radius: int, sigma: float, alpha: float) -> tuple[Images]:
    strength = np.float32(alpha * 10)
    return (np.clip(image * (1 + strength) - _blurred(image, sharpen_radius, sigma) * strength, 0, 1),)


def _blurred(image: Images, radius: int, sigma: float) -> Images:
    """ComfyUI's Gaussian (its sigma is in units of the radius), separated into rows and columns."""
    if radius == 0:
        return image
    weights = np.exp(-(np.linspace(-1, 1, 2 * radius + 1) ** 2) / (2 * sigma * sigma)).astype(np.float32)
    weights /= weights.sum()
    for axis in (1, 2):
        size = image.shape[axis]
        pad = [(radius, radius) if index == axis else (0, 0) for index in range(4)]
        wide = np.pad(image, pad, mode="reflect" if size > 1 else "edge")
        image = np.zeros_like(image)
        for offset, weight in enumerate(weights):
            image += np.take(wide, range(offset, offset + size), axis=axis) * weight
    return image


def _blend(_job: Job, image1: Images, image2: Images, blend_factor: float, blend_mode: str) -> tuple[Images]:
    channels = min(image1.shape[-1], image2.shape[-1])
    below, above = image1[..., :channels], image2[..., :channels]
    if below.shape[1:3] != above.shape[1:3]:
        above = resize(above, below.shape[2], below.shape[1], "bicubic", "center")
    mixed = _mixed(below, above, blend_mode)
    return (np.clip(below * np.float32(1 - blend_factor) + mixed * np.float32(blend_factor), 0, 1),)


def _mixed(below: Images, above: Images, mode: str) -> Images:
    if mode == "multiply":
        return below * above
    if mode == "screen":
        return 1 - (1 - below) * (1 - above)
    if mode == "overlay":
        return np.where(below <= 0.5, 2 * below * above, 1 - 2 * (1 - below) * (1 - above))
    if mode == "soft_light":
        light = np.where(below <= 0.25, ((16 * below - 12) * below + 4) * below, np.sqrt(below))
        darker = below - (1 - 2 * above) * below * (1 - below)
        return np.where(above <= 0.5, darker, below + (2 * above - 1) * (light - below))
    return below - above if mode == "difference" else above


def _quantize(job: Job, image: Images, colors: int, dither: str) -> tuple[Images]:
    frames = []
    for frame in image:
        job.check()
        picture = Image.fromarray(to_bytes(frame[..., :3]))
        palette = picture.quantize(colors)
        if dither == "floyd-steinberg":
            reduced = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        else:
            if dither.startswith("bayer"):
                picture = _ordered(picture, palette, int(dither.split("-")[1]))
            reduced = picture.quantize(palette=palette, dither=Image.Dither.NONE)
        frames.append(np.asarray(reduced.convert("RGB"), dtype=np.float32) / np.float32(255))
    return (np.stack(frames),)


def _ordered(picture: Image.Image, palette: Image.Image, order: int) -> Image.Image:
    """Add a Bayer threshold pattern of `order` x `order` before the palette is applied."""
    pattern = np.zeros((1, 1))
    for _ in range(int(math.log2(order))):
        pattern = np.block([[4 * pattern, 4 * pattern + 2], [4 * pattern + 3, 4 * pattern + 1]])
    thresholds = (pattern + 0.5) / pattern.size - 0.5
    spread = 512 / max(1, len(palette.getpalette() or []) // 3)
    pixels = np.asarray(picture, dtype=np.float32)
    rows, columns = (math.ceil(side / order) for side in pixels.shape[:2])
    tiled = np.tile(thresholds, (rows, columns))[: pixels.shape[0], : pixels.shape[1], None]
    return Image.fromarray(np.clip(pixels + spread * tiled, 0, 255).astype(np.uint8))


NODES = (
    Node(
        "ImageBlur",
        _blur,
        {
            "image": link("IMAGE"),
            "blur_radius": integer(1, 1, 31, 1),
            "sigma": number(1.0, 0.1, 10.0, 0.1),
        },
        outputs=("IMAGE",),
        category="image/postprocessing",
        display_name="Image Blur",
        module=MODULE,
        v3=True,
    ),
    Node(
        "ImageSharpen",
        _sharpen,
        {
            "image": link("IMAGE"),
            "sharpen_radius": integer(1, 1, 31, 1),
            "sigma": number(1.0, 0.1, 10.0),
            "alpha": number(1.0, 0.0, 5.0),
        },
        outputs=("IMAGE",),
        category="image/postprocessing",
        display_name="Image Sharpen",
        module=MODULE,
        v3=True,
    ),
    Node(
        "ImageBlend",
        _blend,
        {
            "image1": link("IMAGE"),
            "image2": link("IMAGE"),
            "blend_factor": number(0.5, 0.0, 1.0),
            "blend_mode": combo(BLENDS),
        },
        outputs=("IMAGE",),
        category="image/postprocessing",
        display_name="Image Blend",
        module=MODULE,
        v3=True,
    ),
    Node(
        "ImageQuantize",
        _quantize,
        {"image": link("IMAGE"), "colors": integer(256, 1, 256, 1), "dither": combo(DITHERS)},
        outputs=("IMAGE",),
        category="image/postprocessing",
        display_name="Image Quantize",
        module=MODULE,
        v3=True,
    ),
)
