"""Drawn images of the simulated multimodal zoo: five styles, each with a level of difficulty that only it shows."""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

SIDE = 128
"""Pixels."""

VERSION = 1
"""Increase it whenever an image changes: they are cached on disk."""

Color = tuple[int, int, int]


def draw_image(style: str, level: float, rng: random.Random) -> Image:
    """Draw an image of :data:`SIDE` × :data:`SIDE` pixels.

    Args:
        style: A key of :data:`STYLES`.
        level: Difficulty, in [0, 1]: more or closer objects, more similar colors, longer and smaller words.
        rng: The only source of randomness; only ``rng.random()`` is used, which never changes.

    Example:
        >>> draw_image("dots", 0.5, random.Random(0)).size
        (128, 128)
    """
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (SIDE, SIDE), _color(rng.random(), 0.08, 0.97))
    STYLES[style](ImageDraw.Draw(image), level, rng)
    return image


def _color(hue: float, saturation: float = 0.9, value: float = 0.6) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _cells(rng: random.Random, count: int, per_side: int) -> list[tuple[float, float]]:
    """Draw ``count`` different cells of a square grid: the coordinates of their centers."""
    cells = sorted(range(per_side**2), key=lambda _: rng.random())[:count]
    step = SIDE / per_side
    return [((cell % per_side + 0.5) * step, (cell // per_side + 0.5) * step) for cell in cells]


def _dots(draw: ImageDraw, level: float, rng: random.Random) -> None:
    """Separate disks: the more, the harder."""
    color = _color(rng.random())
    for x, y in _cells(rng, 2 + int(14 * level), 4):
        radius, dx, dy = 6 + 5 * rng.random(), 8 * rng.random() - 4, 8 * rng.random() - 4
        draw.ellipse((x + dx - radius, y + dy - radius, x + dx + radius, y + dy + radius), fill=color)


def _rings(draw: ImageDraw, level: float, rng: random.Random) -> None:
    """Outlined circles: the more of them overlap, the harder."""
    color = _color(rng.random())
    spread = 34 - 16 * level
    for _ in range(2 + int(6 * level)):
        radius = 16 + 12 * rng.random()
        x, y = (SIDE / 2 + spread * (2 * rng.random() - 1) for _ in range(2))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=color, width=2)


def _patches(draw: ImageDraw, level: float, rng: random.Random) -> None:
    """Colored squares: the more similar their colors, the harder."""
    hue, spread = rng.random(), 0.9 - 0.85 * level
    for x, y in _cells(rng, 16, 4):
        draw.rectangle((x - 13, y - 13, x + 13, y + 13), fill=_color(hue + spread * rng.random(), 0.8, 0.85))


def _words(draw: ImageDraw, level: float, rng: random.Random) -> None:
    """Lines of letters: the more and the smaller, the harder."""
    from PIL import ImageFont

    size, lines = 30 - 16 * level, 2 + int(3 * level)
    font = ImageFont.load_default(size)
    for line in range(lines):
        letters = "".join(chr(65 + int(26 * rng.random())) for _ in range(math.floor(150 / size)))
        draw.text((8, 6 + line * (SIDE - 12) / lines), letters, fill=(30, 30, 30), font=font)


def _bars(draw: ImageDraw, level: float, rng: random.Random) -> None:
    """A bar chart: the more bars, the harder."""
    bars = 2 + int(9 * level)
    step, color = 108 / bars, _color(rng.random())
    draw.line((10, 8, 10, 118, 120, 118), fill=(0, 0, 0), width=2)
    for bar in range(bars):
        left = 13 + bar * step
        draw.rectangle((left, 112 - 90 * rng.random(), left + 0.7 * step, 116), fill=color)


STYLES: dict[str, Callable[[ImageDraw, float, random.Random], None]] = {
    "dots": _dots,
    "rings": _rings,
    "patches": _patches,
    "words": _words,
    "bars": _bars,
}
"""Style → function that draws on an empty image."""
