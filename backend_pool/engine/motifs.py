"""The motifs: each paints height x width x 3 float32 from a palette and a seeded generator, and nothing else."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from backend_pool.engine.nodes.values import Images
from backend_pool.engine.palette import Palette

Random = np.random.Generator
STAR_LIMIT = 500


def mountains(palette: Palette, random: Random, width: int, height: int) -> Images:
    """Ridges behind ridges below a sky with a sun or a moon; a lake in front, sometimes."""
    horizon = random.uniform(0.45, 0.62)
    picture = _sky(palette, random, width, height, horizon)
    ridges = int(random.integers(4, 7))
    rows = np.arange(height, dtype=np.float32)[:, None] / height
    for index in range(ridges):
        depth = (index + 1) / ridges
        line = (
            horizon
            - 0.02
            + 0.86 * depth**1.25 * (1 - horizon)
            + (1 - depth * 0.35) * 0.22 * _outline(random, width, index)
        )
        colour = palette.horizon * np.float32(1 - depth) ** 1.3 + palette.dark * np.float32(depth)
        mist = np.clip((rows - line[None, :]) * 3, 0, 1)[..., None] * np.float32(0.35 * (1 - depth))
        painted = colour + (palette.horizon - colour) * mist
        cover = np.clip((rows - line[None, :]) * height, 0, 1)[..., None].astype(np.float32)
        picture += (painted - picture) * cover
    if random.random() < 0.55:
        _lake(picture, palette, random, int(height * random.uniform(0.74, 0.84)))
    return picture


def silk(palette: Palette, random: Random, width: int, height: int) -> Images:
    """Folds of light: noise bent by noise."""
    bend_x, bend_y = (_noise(random, width, height, 3) for _ in range(2))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle, waves = random.uniform(0, np.pi), random.uniform(5, 9)
    span = np.float32(max(width, height))
    along = x / span * np.float32(np.cos(angle)) + y / span * np.float32(np.sin(angle))
    folds = np.sin((along * waves + bend_x * 2.4 + np.sin(bend_y * 4) * 0.5) * np.float32(np.pi / 1.6))
    shade = 0.08 + (folds * 0.5 + 0.5) * 0.5 + bend_y * 0.3
    picture = palette.ramp(shade.astype(np.float32))
    shine = np.clip(folds, 0, 1).astype(np.float32) ** 18
    picture += shine[..., None] * palette.light * np.float32(0.16)
    return picture


def lights(palette: Palette, random: Random, width: int, height: int) -> Images:
    """Lights out of focus before a soft background."""
    shade = _noise(random, width, height, 2) * np.float32(0.6)
    picture = palette.ramp(shade) * np.float32(0.75)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    span = min(width, height)
    for _ in range(int(random.integers(14, 26))):
        centre_x, centre_y = random.uniform(0, width), random.uniform(0, height)
        radius = span * random.uniform(0.02, 0.16)
        left, right = (int(np.clip(centre_x + side * radius * 1.2, 0, width)) for side in (-1, 1))
        top, bottom = (int(np.clip(centre_y + side * radius * 1.2, 0, height)) for side in (-1, 1))
        if left >= right or top >= bottom:
            continue
        area = np.s_[top:bottom, left:right]
        distance = np.hypot(x[area] - centre_x, y[area] - centre_y) / radius
        disc = np.clip((1.05 - distance) * 9, 0, 1) * (0.55 + 0.45 * np.clip(distance, 0, 1) ** 4)
        colour = palette.ramp(np.float32(random.uniform(0.45, 1.0)) * np.ones(1, dtype=np.float32))[0]
        picture[area] += disc[..., None].astype(np.float32) * colour * np.float32(random.uniform(0.25, 0.7))
    return picture


def dunes(palette: Palette, random: Random, width: int, height: int) -> Images:
    """Sweeping curves lit from one side below an open sky."""
    picture = _sky(palette, random, width, height, 0.5)
    rows = np.arange(height, dtype=np.float32)[:, None] / height
    columns = np.arange(width, dtype=np.float32) / width
    for index in range(6):
        depth = (index + 1) / 6
        phase, swing = random.uniform(0, 7), random.uniform(0.03, 0.09)
        line = 0.42 + 0.5 * depth**1.2 + swing * np.sin(columns * random.uniform(3, 7) + phase)
        slope = np.gradient(line) * width
        lit = np.clip(0.5 + slope * random.uniform(0.6, 1.2), 0, 1).astype(np.float32)[None, :, None]
        front = palette.middle * np.float32(1.15 - 0.5 * depth) + palette.dark * np.float32(0.4 * depth)
        colour = front + (palette.light * np.float32(0.8) - front) * lit * np.float32(0.65)
        fade = np.clip((rows - line[None, :]) * 2.2, 0, 1)[..., None].astype(np.float32)
        cover = np.clip((rows - line[None, :]) * height, 0, 1)[..., None].astype(np.float32)
        picture += (colour + (palette.dark - colour) * fade * np.float32(0.55) - picture) * cover
    return picture


Motif = Callable[[Palette, Random, int, int], Images]

OUTDOORS: tuple[Motif, ...] = (mountains, dunes, mountains)
MOTIFS: tuple[Motif, ...] = (mountains, lights, dunes, silk)
OUTDOOR_WORDS = (
    *("landscape", "scenery", "nature", "wilderness", "mountain", "hill", "valley", "field", "forest", "jungle"),
    *("desert", "lake", "sea", "ocean", "beach", "island", "river", "sky", "sunset", "sunrise", "dawn", "dusk"),
    *("night", "moon", "snow", "winter", "castle", "village", "campfire"),
)


def motifs_for(text: str) -> tuple[Motif, ...]:
    """What may be painted for a prompt: no abstract lights where it speaks of a place."""
    return OUTDOORS if any(f" {word}" in f" {text}" for word in OUTDOOR_WORDS) else MOTIFS


def _sky(palette: Palette, random: Random, width: int, height: int, horizon: float) -> Images:
    rows = np.linspace(0, 1 / horizon, height, dtype=np.float32)[:, None, None]
    fade = np.clip(rows, 0, 1) ** np.float32(1.6)
    picture: Images = np.repeat(palette.sky + (palette.horizon - palette.sky) * fade, width, axis=1)
    picture += (_noise(random, width, height, 4)[..., None] - 0.5) * np.float32(0.10) * palette.light
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    centre = random.uniform(0.15, 0.85) * width, random.uniform(0.12, 0.85 * horizon) * height
    radius = min(width, height) * random.uniform(0.035, 0.10)
    distance = np.hypot(x - centre[0], y - centre[1]) / radius
    disc = np.clip((1 - distance) * radius, 0, 1)
    glow = np.exp(-distance * np.float32(0.45)) * np.float32(0.55)
    picture += np.maximum(disc, glow)[..., None].astype(np.float32) * (palette.light - picture)
    if palette.brightness < 0.5:
        for _ in range(min(STAR_LIMIT, width * height // 900)):
            star_y, star_x = int(random.uniform(0, horizon) * height), int(random.integers(width))
            picture[star_y, star_x] += np.float32(random.uniform(0.2, 0.9))
    return picture


def _lake(picture: Images, palette: Palette, random: Random, shore: int) -> None:
    """Mirror what is above the shore, darker and rippled; in place."""
    height, width = picture.shape[:2]
    depth = height - shore
    if depth < 2 or shore < depth:
        return
    ripple = (random.standard_normal(depth) * np.linspace(0.5, 5, depth)).astype(int)
    for row in range(depth):
        mirrored = np.roll(picture[shore - 1 - row], ripple[row] * width // 512, axis=0)
        picture[shore + row] = mirrored * np.float32(0.72) + palette.middle * np.float32(0.12)


def _outline(random: Random, width: int, roughness: int) -> Images:
    """A ridge line, about -1 to 0, of three octaves."""
    columns = np.linspace(0, 1, width, dtype=np.float32)
    line = np.zeros(width, dtype=np.float32)
    for octave, strength in ((2 + roughness, 0.6), (7, 0.28), (23, 0.12)):
        heights = random.random(octave + 2)
        line += np.interp(columns * octave, np.arange(octave + 2), heights).astype(np.float32) * np.float32(strength)
    return -line


def _noise(random: Random, width: int, height: int, cells: int) -> Images:
    """Smooth noise of 0 to 1: random grids, enlarged and added, finer ones weaker."""
    total = np.zeros((height, width), dtype=np.float32)
    weight, sum_of_weights = 1.0, 0.0
    for octave in range(3):
        size = cells * 2**octave + 1
        grid = Image.fromarray(random.random((size, size), dtype=np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) * np.float32(weight)
        sum_of_weights += weight
        weight *= 0.45
    smooth: Images = np.clip(total / np.float32(sum_of_weights), 0, 1)
    return smooth
