"""What the engine paints instead of a model: deterministic landscapes, silk and lights from prompt text and seed.

Every picture says in its own pixels that no model made it. Palette and motif come from the text, shapes from the seed.
"""

import hashlib

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from backend_pool.engine.motifs import motifs_for
from backend_pool.engine.nodes.values import Images, Scene
from backend_pool.engine.palette import palette_of

CAPTION = "embedded engine - no model"
"""A plain hyphen: Pillow's own font has no dash and few scripts beyond Latin."""
PROMPT_SHOWN = 120


def paint(scene: Scene, index: int, width: int, height: int) -> Images:
    """One picture of a batch: height, width, 3."""
    text = scene.prompt.strip().lower()
    choice = _number(text, str(scene.seed), str(index))
    random = np.random.default_rng(
        [_number(text, scene.negative), _number(str(scene.seed), str(index)), _number(scene.model, scene.variant)]
    )
    motifs = motifs_for(text)
    motif = motifs[choice % len(motifs)]
    picture = motif(palette_of(text, _number(text), random), random, width, height)
    picture += random.standard_normal((height, width, 1), dtype=np.float32) * np.float32(0.008)  # against banding
    return np.clip(picture, 0, 1, out=picture)


def preview(final: Images, done: float, scene: Scene) -> Image.Image:
    """A step's picture: noise that becomes the final one as `done` goes from 0 to 1."""
    random = np.random.default_rng([_number(str(scene.seed)), round(done * 1000)])
    height, width = final.shape[:2]
    # Latents are coarse, and so is their noise.
    coarse = random.random((max(1, height // 4), max(1, width // 4), 3), dtype=np.float32)
    clear = np.float32(done * done * (3 - 2 * done))
    mixed: Images = resized(coarse, width, height) * (1 - clear) + final * clear
    return Image.fromarray(to_bytes(_with_caption(mixed, scene, 0)))


def captioned(picture: Images, scene: Scene, index: int) -> Images:
    """The picture with its caption strip."""
    return _with_caption(picture, scene, index)


def blank(width: int, height: int) -> Images:
    """What an unsampled latent decodes to: grey."""
    return np.full((height, width, 3), 0.5, dtype=np.float32)


def resized(picture: Images, width: int, height: int) -> Images:
    """Another size, bilinear."""
    if picture.shape[:2] == (height, width):
        return picture
    image = Image.fromarray(to_bytes(picture)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def to_bytes(picture: Images) -> npt.NDArray[np.uint8]:
    """0 to 1 becomes 0 to 255, cut as ComfyUI's SaveImage does."""
    cut: npt.NDArray[np.uint8] = np.clip(picture * np.float32(255), 0, 255).astype(np.uint8)
    return cut


def _with_caption(picture: Images, scene: Scene, index: int) -> Images:
    image = Image.fromarray(to_bytes(picture))
    width, height = image.size
    size = max(8, min(width // 34, height // 18))
    font = ImageFont.load_default(size)
    seed = f"seed {scene.seed}" + (f" #{index + 1}" if index else "")
    readable = scene.prompt.encode("latin-1", "ignore").decode("latin-1")
    prompt = " ".join(readable.split())[:PROMPT_SHOWN] or ("..." if scene.prompt.strip() else "(empty prompt)")
    lines = [CAPTION, _fitted(f"{seed} · {prompt}", font, width - size)]
    strip = Image.new("RGBA", (width, min(height, round(size * 3.1))), (0, 0, 0, 150))
    pen = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        pen.text((size // 2, size * (0.25 + 1.35 * number)), line, font=font, fill=(255, 255, 255, 235))
    image.paste(strip.convert("RGB"), (0, height - strip.height), strip.getchannel("A"))
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _fitted(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> str:
    if font.getlength(line) <= room:
        return line
    while line and font.getlength(line + "...") > room:
        line = line[:-1]
    return line + "..."


def _number(*parts: str) -> int:
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8])
