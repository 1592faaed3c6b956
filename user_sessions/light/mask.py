"""Pictures the session computes: a mask laid into its original, previews, and single channels.

Pure functions from files to bytes, blocking; callers run them in a thread. Pillow is imported where it is used: the
zygote has it already, so a session pays nothing for it until it draws.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.base.errors import BadInput, NotFound
from proxy.base.pictures import open_picture, shrink_to_preview
from user_sessions.light.files import Areas, annotated

if TYPE_CHECKING:
    from PIL import Image

PREVIEW_QUALITY = 90


def original_of(reference: str | None, areas: Areas) -> Path:
    """The file that `original_ref`, a JSON object `{filename, subfolder?, type?}`, names."""
    try:
        ref = json.loads(reference or "")
    except ValueError as error:
        raise BadInput("`original_ref` is not JSON.") from error
    if not isinstance(ref, dict):
        raise BadInput("`original_ref` must be an object.")
    values = [ref.get("filename"), ref.get("subfolder", ""), ref.get("type", "output")]
    if not all(isinstance(value, str) for value in values):
        raise BadInput("`original_ref` needs the texts filename, subfolder and type.")
    name, area = annotated(values[0])
    if not name or name.startswith("/") or ".." in name or areas.root(area or values[2]) is None:
        raise BadInput("`original_ref` does not name a file.")
    found = areas.find(area or values[2], values[1], name)
    if found is None:
        raise NotFound("The picture this mask belongs to does not exist.")
    return found


def apply_mask(original: Path, mask: Path) -> bytes:
    """PNG of `original` with the alpha channel of `mask`, keeping the original's text chunks (the workflow)."""
    from PIL.PngImagePlugin import PngInfo

    with _readable(), open_picture(original) as source, open_picture(mask) as drawn:
        kept = PngInfo()
        for key, value in getattr(source, "text", {}).items():
            kept.add_text(key, value)
        picture = source.convert("RGBA")
        picture.putalpha(drawn.convert("RGBA").getchannel("A"))
        buffer = BytesIO()
        picture.save(buffer, "PNG", compress_level=4, pnginfo=kept)
        return buffer.getvalue()


def preview(path: Path, wish: str, channel: str) -> tuple[bytes, str]:
    """Re-encoded for `preview=webp;90` or `jpeg;q`; returns bytes and content type.

    Only a preview without `channel` may be smaller than its picture: the mask editor measures by the others.
    """
    form, _, quality = wish.partition(";")
    if form not in {"webp", "jpeg"} or "a" in channel:
        form = "webp"
    value = int(quality[-4:]) if quality.isascii() and quality.isdigit() else PREVIEW_QUALITY
    with _readable(), open_picture(path) as source:
        if not channel:
            shrink_to_preview(source)
        picture = _plain(source, "RGB" if form == "jpeg" or channel == "rgb" else None)
        buffer = BytesIO()
        picture.save(buffer, form, quality=min(max(value, 1), 100))
        return buffer.getvalue(), f"image/{form}"


def one_channel(path: Path, channel: str) -> tuple[bytes, str]:
    """PNG of `rgb` (colours without alpha) or `a` (alpha alone, on black)."""
    from PIL import Image

    with _readable(), open_picture(path) as source:
        if channel == "rgb":
            picture = source.convert("RGB")
        else:
            alpha = source.getchannel("A") if source.mode == "RGBA" else Image.new("L", source.size, 255)
            picture = Image.new("RGBA", source.size)
            picture.putalpha(alpha)
        buffer = BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue(), "image/png"


def preload() -> None:
    """Import Pillow and its codecs; called in the zygote."""
    from PIL import Image

    Image.init()


def _plain(source: "Image.Image", mode: str | None) -> "Image.Image":
    """In a mode that WebP and JPEG can hold."""
    if mode is None:
        mode = "RGBA" if "A" in source.getbands() or "transparency" in source.info else "RGB"
    return source.convert(mode)


@contextmanager
def _readable() -> Iterator[None]:
    """Map what Pillow raises on files that are no pictures to BadInput."""
    try:
        yield
    except (ValueError, SyntaxError, EOFError) as error:
        raise BadInput("The picture cannot be read.", str(error)[:200]) from error
    except OSError as error:  # Pillow's own carry no errno, the file system's do
        if error.errno is not None:
            raise
        raise BadInput("The picture cannot be read.", str(error)[:200]) from error
