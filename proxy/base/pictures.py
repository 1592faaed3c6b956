"""Pictures that users send, opened within a limit: a file of a few kilobytes may unfold into gigabytes of pixels.

Pillow is imported when first used, so that processes which never draw do not pay for it. The only state is Pillow's own
limit, which is the process's.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from typing import IO, TYPE_CHECKING

from proxy.base.errors import TooLarge

if TYPE_CHECKING:
    from PIL import Image

PIXELS = 64_000_000
"""The most a picture may have before anything decodes it: 8000 by 8000."""
PREVIEW_PIXELS = 16_777_216
"""4096 by 4096: what is larger is shown smaller, ComfyUI would encode it whole."""
PREVIEW_SIDE = 16_383
"""WebP's longest."""


@contextmanager
def open_picture(file: Path | IO[bytes]) -> Iterator["Image.Image"]:
    """`Image.open` that raises TooLarge above PIXELS, here or while the block decodes; else Pillow's own errors."""
    from PIL import Image

    # Pillow itself looks again at what only decoding shows: pictures inside icons, frames that outgrow the first. It
    # refuses twice its limit and warns above the limit.
    Image.MAX_IMAGE_PIXELS = PIXELS // 2
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    try:
        with Image.open(file) as picture:
            yield picture
    except Image.DecompressionBombError as error:
        limit = PIXELS // 1_000_000
        raise TooLarge(f"The picture has more than {limit} million pixels. Send a smaller one.") from error


def shrink_to_preview(picture: "Image.Image") -> None:
    """Scale down in place what is larger than a preview may be; a JPEG is decoded small to begin with."""
    width, height = picture.size
    scale = min(1.0, sqrt(PREVIEW_PIXELS / max(width * height, 1)), PREVIEW_SIDE / max(width, height, 1))
    if scale < 1:
        picture.thumbnail((max(1, int(width * scale)), max(1, int(height * scale))), reducing_gap=2.0)
