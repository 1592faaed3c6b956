"""Resizing arrays of pictures by ComfyUI's method names, with the pixels torch's `interpolate` gives.

torch does not smooth when it shrinks with bilinear or bicubic and Pillow does, so those are computed here; lanczos is
Pillow's in ComfyUI too. Work is linear in the pixels.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from backend_pool.engine.nodes.values import Images, room_for

METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
CUBIC = -0.75
"""torch's coefficient of bicubic interpolation."""

Weights = list[tuple[npt.NDArray[np.intp], Images]]


def resize(images: Images, width: int, height: int, method: str, crop: str = "disabled") -> Images:
    """Another size; `center` cuts to the new proportions first."""
    width, height = max(1, width), max(1, height)
    room_for(width * height * len(images))
    if crop == "center":
        images = _cut(images, width, height)
    if images.shape[1:3] == (height, width):
        return images
    if method == "lanczos":
        resized = np.stack([_lanczos(image, width, height) for image in images])
    else:
        along = _averaged if method == "area" else _interpolated
        # The axis that shrinks first: the array between the two passes stays small.
        axes = [(1, height), (2, width)]
        axes.sort(key=lambda pair: pair[1] / images.shape[pair[0]])
        resized = images
        for axis, size in axes:
            resized = along(resized, axis, size, method)
    clipped: Images = np.clip(resized, 0, 1)
    return clipped


def _interpolated(images: Images, axis: int, size: int, method: str) -> Images:
    shape = [1] * images.ndim
    shape[axis] = size
    total: Images | None = None
    for index, weight in _taps(images.shape[axis], size, method):
        part = np.take(images, index, axis=axis) * weight.reshape(shape)
        total = part if total is None else total + part
    assert total is not None
    return total


def _taps(old: int, new: int, method: str) -> Weights:
    """Which old pixels make each new one, and how much of them."""
    scale = old / new
    if method == "nearest-exact":
        nearest = np.floor((np.arange(new) + 0.5) * scale).astype(np.intp)
        return [(np.clip(nearest, 0, old - 1), np.ones(new, dtype=np.float32))]
    places = (np.arange(new) + 0.5) * scale - 0.5
    if method == "bilinear":
        places = np.maximum(places, 0)
    first = np.floor(places)
    part = places - first
    if method == "bilinear":
        weights = [(0, 1 - part), (1, part)]
    else:
        weights = [(offset, _cubic(np.abs(part - offset))) for offset in (-1, 0, 1, 2)]
    return [
        (np.clip(first + offset, 0, old - 1).astype(np.intp), weight.astype(np.float32)) for offset, weight in weights
    ]


def _cubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1
    far = ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
    return np.where(distance <= 1, near, far)


def _averaged(images: Images, axis: int, size: int, _method: str) -> Images:
    """Means over windows, as torch's adaptive pooling cuts them."""
    old = images.shape[axis]
    starts = np.arange(size) * old // size
    ends = -(-(np.arange(1, size + 1) * old) // size)
    sums = np.cumsum(images, axis=axis, dtype=np.float64)
    sums = np.concatenate([np.zeros_like(np.take(sums, [0], axis=axis)), sums], axis=axis)
    shape = [1] * images.ndim
    shape[axis] = size
    means = (np.take(sums, ends, axis=axis) - np.take(sums, starts, axis=axis)) / (ends - starts).reshape(shape)
    narrow: Images = means.astype(np.float32)
    return narrow


def _lanczos(image: Images, width: int, height: int) -> Images:
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32)).resize(
                (width, height), Image.Resampling.LANCZOS
            )
        )
        for plane in np.moveaxis(image, -1, 0)
    ]
    return np.stack(planes, axis=-1)


def _cut(images: Images, width: int, height: int) -> Images:
    old_height, old_width = images.shape[1:3]
    left = top = 0
    if old_width / old_height > width / height:
        left = round((old_width - old_width * (width / height) / (old_width / old_height)) / 2)
    else:
        top = round((old_height - old_height * (old_width / old_height) / (width / height)) / 2)
    return images[:, top : old_height - top, left : old_width - left]
