"""Colours from words: a palette of a sky, a horizon, a light, a middle and a dark, by keyword or by hash. Pure."""

import colorsys
from dataclasses import dataclass

import numpy as np

from backend_pool.engine.nodes.values import Images

# Hue, saturation and brightness (0 to 1) that a word suggests; the first word found in the text wins.
MOODS: tuple[tuple[tuple[str, ...], tuple[float, float, float]], ...] = (
    (("night", "milky way", "star", "moon", "galaxy", "space", "dark"), (0.65, 0.62, 0.30)),
    (("sunset", "sunrise", "dawn", "dusk", "golden"), (0.04, 0.72, 0.92)),
    (("fire", "lava", "flame", "dragon", "red"), (0.01, 0.80, 0.72)),
    (("forest", "jungle", "grass", "green", "tree"), (0.33, 0.50, 0.70)),
    (("sea", "ocean", "lake", "water", "river", "blue"), (0.55, 0.58, 0.85)),
    (("snow", "winter", "ice", "frost", "white"), (0.58, 0.18, 0.97)),
    (("desert", "sand", "dune", "yellow"), (0.11, 0.50, 0.93)),
    (("flower", "rose", "pink", "cherry"), (0.91, 0.45, 0.95)),
    (("neon", "cyber", "purple", "violet"), (0.79, 0.72, 0.60)),
)


@dataclass(frozen=True)
class Palette:
    """Five colours of shape (3,), and how bright the whole is."""

    sky: Images
    horizon: Images
    light: Images
    middle: Images
    dark: Images
    brightness: float

    def ramp(self, values: Images) -> Images:
        """Values of 0 to 1 (any shape) become colours from dark to light."""
        stops = np.stack([self.dark, self.middle, self.sky, self.horizon, self.light])
        place = np.clip(values, 0, 1) * np.float32(len(stops) - 1.001)
        low = place.astype(np.intp)
        part = (place - low)[..., None].astype(np.float32)
        mixed: Images = stops[low] * (1 - part) + stops[low + 1] * part
        return mixed


def palette_of(text: str, number: int, random: np.random.Generator) -> Palette:
    """The palette of a prompt; `number` decides where no word does, `random` (the seed) varies it a little."""
    hue, saturation, brightness = (number % 997) / 997, 0.45 + (number % 31) / 90, 0.55 + (number % 37) / 90
    for words, mood in MOODS:
        if any(f" {word}" in f" {text}" for word in words):
            hue, saturation, brightness = mood
            hue += ((number % 101) / 101 - 0.5) * 0.06
            break
    hue += random.uniform(-0.04, 0.04)
    turn = random.choice([0.07, 0.11, -0.08, -0.12])
    return Palette(
        sky=_colour(hue, saturation, brightness * 0.75),
        horizon=_colour(hue + turn, saturation * 0.7, min(1.0, brightness * 1.15)),
        light=_colour(hue + turn, 0.16, 1.0),
        middle=_colour(hue - turn * 0.5, saturation * 0.9, brightness * 0.55),
        dark=_colour(hue - turn * 0.3, min(1.0, saturation * 1.1), brightness * 0.16),
        brightness=brightness,
    )


def _colour(hue: float, saturation: float, value: float) -> Images:
    return np.array(colorsys.hsv_to_rgb(hue % 1, min(1.0, saturation), min(1.0, value)), dtype=np.float32)
