"""Colours: what a scene of a style is painted in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from .plan import Rgb
    from .style import SceneStyle

SANDS: tuple[Rgb, ...] = (
    (188, 194, 204), (196, 188, 182), (194, 182, 162), (186, 164, 132), (202, 202, 202),
    (178, 162, 144),
)  # fmt: skip
SOILS: tuple[Rgb, ...] = ((150, 126, 98), (132, 108, 84), (168, 148, 118), (120, 102, 82))
CROPS: dict[str, tuple[Rgb, ...]] = {
    "spring": ((104, 130, 68), (88, 116, 60), (124, 138, 80), (164, 158, 72)),
    "summer": ((96, 116, 62), (80, 104, 56), (116, 126, 74), (70, 92, 52)),
    "autumn": ((110, 116, 72), (98, 104, 66), (124, 120, 80), (88, 96, 60)),
    "winter": ((98, 106, 78), (88, 96, 70), (108, 112, 86), (80, 90, 66)),
}
_LAWNS: dict[str, Rgb] = {
    "spring": (94, 116, 66), "summer": (92, 108, 64), "autumn": (102, 108, 70),
    "winter": (100, 104, 80),
}  # fmt: skip
_CROWNS: dict[str, tuple[Rgb, Rgb]] = {
    "spring": ((60, 84, 44), (102, 122, 64)),
    "summer": ((50, 72, 40), (84, 102, 56)),
    "autumn": ((72, 80, 44), (160, 112, 56)),
    "winter": ((72, 70, 58), (98, 90, 76)),
}


@dataclass(frozen=True, slots=True)
class Tones:
    """Colours that one scene is painted in.

    Attributes:
        sand: Open ground.
        paving: Ground between buildings.
        asphalt: Carriageways of main roads.
        street: Carriageways of small streets.
        kerb: Edges of roads.
        lawn: Watered grass.
        crowns: Two colours that trees lie between.
        deep: Deep water.
        shallow: Water at the shore.
    """

    sand: Rgb
    paving: Rgb
    asphalt: Rgb
    street: Rgb
    kerb: Rgb
    lawn: Rgb
    crowns: tuple[Rgb, Rgb]
    deep: Rgb
    shallow: Rgb


def draw_tones(rng: np.random.Generator, style: SceneStyle) -> Tones:
    """Draws the colours of a scene."""
    desert = style.climate == "desert"
    asphalt = int(rng.integers(48, 86)) if desert else int(rng.integers(72, 112))
    warm = int(rng.integers(0, 9))
    street = asphalt + int(rng.integers(6, 32))
    sand = SANDS[int(rng.integers(len(SANDS)))] if desert else (122, 122, 88)
    paving: Rgb = scaled(sand, rng.uniform(0.72, 0.86)) if desert else (148, 145, 140)
    deep = ((12, 14, 14), (22, 34, 32), (18, 40, 54), (34, 44, 30))[int(rng.integers(4))]
    return Tones(
        sand=sand,
        paving=paving,
        asphalt=(asphalt + warm, asphalt + warm // 2, asphalt),
        street=(street + warm, street + warm // 2, street),
        kerb=scaled(paving, rng.uniform(1.0, 1.16)),
        lawn=(78, 90, 60) if desert else _LAWNS[style.season],
        crowns=((46, 58, 42), (74, 86, 58)) if desert else _CROWNS[style.season],
        deep=deep,
        shallow=((96, 112, 88), (118, 128, 112), (88, 120, 116))[int(rng.integers(3))],
    )


def scaled(rgb: Rgb, factor: float) -> Rgb:
    """Makes a colour brighter or darker, short of pure black and white."""
    red, green, blue = (min(max(round(v * factor), 4), 251) for v in rgb)
    return red, green, blue


def mixed(first: Rgb, second: Rgb, share: float) -> Rgb:
    """Goes the share of the way from the first colour to the second."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(first, second, strict=True))
    return red, green, blue
