"""Resizing arrays of pictures and masks with ComfyUI's method names."""

import numpy as np
from PIL import Image

from backend_pool.engine.nodes.values import Images, room_for

METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
FILTERS = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resize(images: Images, width: int, height: int, method: str, crop: str = "disabled") -> Images:
    """Another size; `center` cuts to the new proportions first."""
    width, height = max(1, width), max(1, height)
    room_for(width * height * len(images))
    if crop == "center":
        images = _cut(images, width, height)
    if images.shape[1:3] == (height, width):
        return images
    frames = [
        np.stack([_plane(plane, width, height, method) for plane in np.moveaxis(image, -1, 0)], axis=-1)
        for image in images
    ]
    clipped: Images = np.clip(np.stack(frames), 0, 1)
    return clipped


def _plane(plane: Images, width: int, height: int, method: str) -> Images:
    image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    return np.asarray(image.resize((width, height), FILTERS[method]))


def _cut(images: Images, width: int, height: int) -> Images:
    old_height, old_width = images.shape[1:3]
    left = top = 0
    if old_width / old_height > width / height:
        left = round((old_width - old_width * (width / height) / (old_width / old_height)) / 2)
    else:
        top = round((old_height - old_height * (old_width / old_height) / (width / height)) / 2)
    return images[:, top : old_height - top, left : old_width - left]
