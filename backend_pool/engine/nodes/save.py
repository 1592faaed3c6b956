"""Nodes that write files: SaveImage and PreviewImage with metadata, animated WebP and PNG."""

import json
import random
import string
from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from backend_pool.engine.files import Kind, SaveTarget
from backend_pool.engine.job import Job
from backend_pool.engine.nodes.registry import Node, Shown, combo, integer, link, number
from backend_pool.engine.nodes.values import Images
from backend_pool.engine.pictures import to_bytes

WEBP_METHODS = {"default": 4, "fastest": 0, "slowest": 6}
MODEL_TAG, MAKE_TAG = 0x0110, 0x010F
HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}


@dataclass(frozen=True)
class Animation:
    """How an animated file is written."""

    suffix: str
    fps: float
    options: dict[str, Any]


def _save(job: Job, images: Images, filename_prefix: str = "ComfyUI") -> Shown:
    return _save_png(job, images, filename_prefix, "output", 4)


def _preview(job: Job, images: Images) -> Shown:
    # One random suffix per node instance, as in ComfyUI: two PreviewImage nodes never share a counter.
    letters = job.state.setdefault("suffix", "".join(random.choices(string.ascii_lowercase, k=5)))  # noqa: S311
    return _save_png(job, images, f"ComfyUI_temp_{letters}", "temp", 1)


def _save_png(job: Job, images: Images, prefix: str, kind: Kind, compress_level: int) -> Shown:
    target = _target(job, images, prefix, kind)
    metadata = PngInfo()
    for key, value in _texts(job).items():
        metadata.add_text(key, value)
    shown = []
    for index, image in enumerate(images):
        job.check()
        name = f"{target.name.replace('%batch_num%', str(index))}_{target.counter + index:05}_.png"
        picture = Image.fromarray(to_bytes(image))
        picture.save(target.folder / name, pnginfo=metadata, compress_level=compress_level)
        shown.append({"filename": name, "subfolder": target.subfolder, "type": kind})
    return Shown({"images": shown})


def _webp(
    job: Job, *, images: Images, filename_prefix: str, fps: float, lossless: bool, quality: int, method: str
) -> Shown:
    exif = Image.Exif()
    for tag, (key, value) in enumerate(_texts(job).items()):
        exif[MODEL_TAG if key == "prompt" else MAKE_TAG - tag + 1] = f"{key}:{value}"
    options = {"exif": exif, "lossless": lossless, "quality": quality, "method": WEBP_METHODS.get(method, 4)}
    return _animated(job, images, filename_prefix, Animation("webp", fps, options))


def _apng(job: Job, *, images: Images, filename_prefix: str, fps: float, compress_level: int) -> Shown:
    metadata = PngInfo()
    for key, value in _texts(job).items():
        metadata.add(b"comf", key.encode("latin-1", "replace") + b"\0" + value.encode("latin-1"), after_idat=True)
    options = {"pnginfo": metadata, "compress_level": compress_level}
    return _animated(job, images, filename_prefix, Animation("png", fps, options))


def _animated(job: Job, images: Images, prefix: str, animation: Animation) -> Shown:
    target = _target(job, images, prefix, "output")
    first, *rest = (Image.fromarray(to_bytes(image)) for image in images)
    name = f"{target.name}_{target.counter:05}_.{animation.suffix}"
    duration = int(1000 / animation.fps)
    first.save(target.folder / name, save_all=True, append_images=rest, duration=duration, **animation.options)
    saved = {"filename": name, "subfolder": target.subfolder, "type": "output"}
    return Shown({"images": [saved], "animated": [len(images) > 1]})


def _target(job: Job, images: Images, prefix: str, kind: Kind) -> SaveTarget:
    height, width = images.shape[1:3]
    return job.directories.save_target(prefix, kind, width, height)


def _texts(job: Job) -> dict[str, str]:
    """What ComfyUI embeds: the prompt as executed and each key of extra_pnginfo, as ASCII JSON."""
    extra = job.extra_data.get("extra_pnginfo")
    workflow = extra if isinstance(extra, dict) else {}
    return {"prompt": json.dumps(job.prompt)} | {str(key): json.dumps(value) for key, value in workflow.items()}


NODES = (
    Node(
        "SaveImage",
        _save,
        {
            "images": ("IMAGE", {"tooltip": "The images to save."}),
            "filename_prefix": (
                "STRING",
                {
                    "default": "ComfyUI",
                    "tooltip": "The prefix of the file; it may hold %date:yyyy-MM-dd% or %Empty Latent Image.width%.",
                },
            ),
        },
        category="image",
        display_name="Save Image",
        description="Saves the input images to your ComfyUI output directory.",
        output_node=True,
        hidden=HIDDEN,
    ),
    Node(
        "PreviewImage",
        _preview,
        {"images": ("IMAGE",)},
        category="image",
        display_name="Preview Image",
        description="Saves the input images to your ComfyUI output directory.",
        output_node=True,
        hidden=HIDDEN,
    ),
    Node(
        "SaveAnimatedWEBP",
        _webp,
        {
            "images": link("IMAGE"),
            "filename_prefix": ("STRING", {"default": "ComfyUI", "multiline": False}),
            "fps": number(6.0, 0.01, 1000.0),
            "lossless": ("BOOLEAN", {"default": True}),
            "quality": integer(80, 0, 100),
            "method": combo(list(WEBP_METHODS)),
        },
        category="image/animation",
        output_node=True,
        hidden=HIDDEN,
        module="comfy_extras.nodes_images",
        v3=True,
    ),
    Node(
        "SaveAnimatedPNG",
        _apng,
        {
            "images": link("IMAGE"),
            "filename_prefix": ("STRING", {"default": "ComfyUI", "multiline": False}),
            "fps": number(6.0, 0.01, 1000.0),
            "compress_level": integer(4, 0, 9),
        },
        category="image/animation",
        output_node=True,
        hidden=HIDDEN,
        module="comfy_extras.nodes_images",
        v3=True,
    ),
)
