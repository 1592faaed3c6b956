"""Pictures re-encoded for /view: small previews and single channels. Blocking.

Raise OSError, ValueError or SyntaxError for what is no image, and TooLarge.
"""

import io
from pathlib import Path

from PIL import Image

from proxy.base.pictures import open_picture, shrink_to_preview

QUALITY = 90


def preview_of(path: Path, wish: str, channel: str) -> tuple[str, bytes]:
    """`webp;90` or `jpeg;75`: content type and body."""
    parts = wish.split(";")
    kind = parts[0] if parts[0] in ("webp", "jpeg") and "a" not in channel else "webp"
    quality = int(parts[-1]) if parts[-1].isascii() and parts[-1].isdigit() else QUALITY
    with open_picture(path) as source:
        if not channel:
            shrink_to_preview(source)
        picture = source.convert("RGB") if kind == "jpeg" or channel == "rgb" else source
        return f"image/{kind}", _encoded(picture, kind, quality=min(quality, 100))


def channel_png(path: Path, channel: str) -> bytes:
    """`rgb` without alpha, or `a`: the alpha channel alone, as a PNG."""
    with open_picture(path) as source:
        if channel == "rgb":
            return _encoded(source.convert("RGB"), "png")
        alpha = source.getchannel("A") if source.mode == "RGBA" else Image.new("L", source.size, 255)
        picture = Image.new("RGBA", source.size)
        picture.putalpha(alpha)
        return _encoded(picture, "png")


def _encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()
