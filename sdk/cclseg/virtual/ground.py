"""Paints the ground of a scene: terrain, patches of land use, and water."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ._cv import cv2
from .classes import LAND, ROAD, VEGETATION, WATER
from .noise import Field, fractal_noise

if TYPE_CHECKING:
    from .canvas import Canvas
    from .plan import Patch, Plan, Rgb
    from .style import SceneStyle

Bool = NDArray[np.bool_]

_SANDS: tuple[Rgb, ...] = (
    (198, 204, 214), (206, 198, 192), (204, 192, 172), (194, 172, 140), (214, 214, 214),
    (186, 170, 152),
)  # fmt: skip
_SOILS: tuple[Rgb, ...] = ((150, 126, 98), (132, 108, 84), (168, 148, 118), (120, 102, 82))
_CROPS: dict[str, tuple[Rgb, ...]] = {
    "spring": ((112, 146, 66), (90, 128, 56), (136, 156, 78), (168, 164, 60)),
    "summer": ((98, 128, 58), (78, 112, 50), (124, 138, 70), (70, 98, 48)),
    "autumn": ((112, 120, 66), (96, 106, 60), (128, 124, 76), (88, 100, 56)),
    "winter": ((98, 110, 74), (86, 98, 66), (110, 116, 84), (78, 92, 62)),
}
_LAWNS: dict[str, Rgb] = {
    "spring": (96, 128, 62), "summer": (94, 118, 60), "autumn": (104, 112, 66), "winter": (100, 106, 76),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tones:
    """Colours that one scene is painted in.

    Attributes:
        sand: Open ground.
        paving: Ground between buildings.
        asphalt: Carriageways of main roads.
        street: Carriageways of small streets.
        lawn: Watered grass.
        crowns: Two colours that trees lie between.
        deep: Deep water.
        shallow: Water at the shore.
    """

    sand: Rgb
    paving: Rgb
    asphalt: Rgb
    street: Rgb
    lawn: Rgb
    crowns: tuple[Rgb, Rgb]
    deep: Rgb
    shallow: Rgb


def draw_tones(rng: np.random.Generator, style: SceneStyle) -> Tones:
    """Draws the colours of a scene."""
    desert = style.climate == "desert"
    asphalt = int(rng.integers(46, 84)) if desert else int(rng.integers(70, 112))
    warm = int(rng.integers(0, 9))
    street = asphalt + int(rng.integers(6, 32))
    grass = _SANDS[int(rng.integers(len(_SANDS)))] if desert else (122, 124, 84)
    crowns = {
        "spring": ((62, 92, 40), (104, 132, 60)),
        "summer": ((50, 78, 38), (84, 108, 52)),
        "autumn": ((74, 82, 40), (164, 112, 50)),
        "winter": ((72, 70, 58), (98, 90, 76)),
    }[style.season]
    deep = ((12, 14, 14), (22, 34, 32), (18, 40, 54), (34, 44, 30))[int(rng.integers(4))]
    return Tones(
        sand=grass,
        paving=(158, 154, 150) if desert else (152, 148, 142),
        asphalt=(asphalt + warm, asphalt + warm // 2, asphalt),
        street=(street + warm, street + warm // 2, street),
        lawn=(80, 94, 62) if desert else _LAWNS[style.season],
        crowns=((46, 58, 42), (74, 86, 58)) if desert else crowns,
        deep=deep,
        shallow=((96, 112, 88), (118, 128, 112), (88, 120, 116))[int(rng.integers(3))],
    )


class GroundPainter:
    """Paints everything that lies flat.

    Args:
        canvas: Layers to paint on.
        tones: Colours.
        style: Choices of the scene.
        rng: Source of randomness.
    """

    def __init__(
        self, canvas: Canvas, tones: Tones, style: SceneStyle, rng: np.random.Generator
    ) -> None:
        self._canvas = canvas
        self._tones = tones
        self._style = style
        self._rng = rng
        hw = canvas.label.shape
        per_m = 1 / canvas.gsd_m
        self._broad = fractal_noise(rng, hw, 420 * per_m, octaves=4)
        self._middle = fractal_noise(rng, hw, 90 * per_m, octaves=5)
        self._fine = fractal_noise(rng, hw, 16 * per_m, octaves=4)

    def paint(self, plan: Plan) -> None:
        """Paints terrain, patches, water and swimming pools, in this order."""
        self._terrain()
        visible = [p for p in plan.patches if not self._canvas.is_outside(p.outline)]
        for patch in visible:
            if patch.kind != "pool":
                self._patch(patch)
        self._water_body()
        _colour_water(self._canvas, self._tones, self._rng)
        for patch in visible:
            if patch.kind == "pool":
                self._patch(patch)

    def _terrain(self) -> None:
        """Open ground: sand with darker gravel flats, or grassland."""
        canvas = self._canvas
        if self._style.climate == "desert":
            dark = np.clip((self._broad + 0.5 * self._middle - 0.35) * 2.2, 0, 1) * 0.42
            dune = 0.045 * self._middle + 0.035 * self._fine
            _blend(canvas.albedo, self._tones.sand, 1 - dark + dune)
            shrubs = (self._fine > 0.72) & (self._broad > 0.05)
            canvas.albedo[shrubs] = (canvas.albedo[shrubs] * 0.62).astype(np.uint8)
            return
        meadow = self._middle + 0.4 * self._broad > -0.25
        _blend(canvas.albedo, _SOILS[2], 1 + 0.12 * self._middle)
        green = np.empty_like(canvas.albedo)
        _blend(green, self._tones.lawn, 1 + 0.1 * self._middle + 0.12 * self._fine)
        canvas.albedo[meadow] = green[meadow]
        canvas.label[meadow] = VEGETATION

    def _patch(self, patch: Patch) -> None:
        mask, window = self._canvas.mask_of(patch.outline)
        if patch.kind in ("golf", "park", "wild", "scrub"):
            self._natural(patch, mask, window)
            return
        label, rgb, spread = self._surface(patch)
        shade = 1 + spread * (self._middle[window][mask] + self._fine[window][mask])
        if patch.furrow_rad is not None:
            shade = shade + self._furrows(patch, mask, window)
        self._put(window, mask, label, rgb, shade)
        if patch.kind == "verge":
            self._canvas.blocked[window][mask] = 1

    def _surface(self, patch: Patch) -> tuple[int, Rgb, float]:
        """Class, colour and unevenness of a plain patch."""
        rng, tones = self._rng, self._tones
        desert = self._style.climate == "desert"
        crops = _CROPS[self._style.season]
        soils = _SOILS if not desert else _SANDS
        table: dict[str, tuple[int, Rgb, float]] = {
            "lawn": (VEGETATION, tones.lawn, 0.10),
            "soil": (LAND, soils[int(rng.integers(len(soils)))], 0.07),
            "crop": (VEGETATION, crops[int(rng.integers(len(crops)))], 0.07),
            "paving": (LAND, tones.paving, 0.05),
            "parking": (ROAD, tones.street, 0.04),
            "pool": (WATER, (72, 150, 176), 0.02),
            "verge": (LAND, tones.sand, 0.06) if desert else (VEGETATION, tones.lawn, 0.1),
        }
        label, rgb, spread = table[patch.kind]
        return label, patch.rgb or rgb, spread

    def _furrows(self, patch: Patch, mask: Bool, window: tuple[slice, slice]) -> Field:
        """Stripes along a direction: furrows of fields, bays of car parks."""
        gsd = self._canvas.gsd_m
        y, x = np.nonzero(mask)
        angle = float(patch.furrow_rad or 0.0)
        across = (x + window[1].start) * gsd * -np.sin(angle) + (
            y + window[0].start
        ) * gsd * np.cos(angle)
        if patch.kind == "parking":
            return np.where(np.mod(across, 8.0) < max(0.35, gsd), 0.55, 0.0).astype(np.float32)
        pitch = max(2.6, 3 * gsd) if patch.kind in ("crop", "soil") else 11.0
        depth = 0.07 if patch.kind in ("crop", "soil") else 0.05
        tram = np.mod(across, pitch * 8) < pitch * 0.7
        wave = np.sin(across * (2 * np.pi / pitch))
        if patch.kind == "lawn":
            wave = np.sign(wave)
        return (depth * wave - 0.1 * (tram & (patch.kind == "crop"))).astype(np.float32)

    def _natural(self, patch: Patch, mask: Bool, window: tuple[slice, slice]) -> None:
        """Uses whose inner borders are irregular: noise decides what lies where."""
        broad, middle, fine = (f[window][mask] for f in (self._broad, self._middle, self._fine))
        tones = self._tones
        shade = 1 + 0.09 * middle + 0.12 * fine
        desert = self._style.climate == "desert"
        if patch.kind == "wild":
            self._put(window, mask, VEGETATION, tones.crowns[0], shade)
        elif patch.kind == "park":
            self._put(window, mask, VEGETATION, tones.lawn, shade)
            self._put_where(window, mask, np.abs(middle - 0.12) < 0.02, LAND, (196, 184, 164))
            self._put_where(window, mask, middle - 0.3 * broad > 0.62, WATER, tones.deep)
        elif patch.kind == "golf":
            rough: Rgb = tones.sand if desert else (112, 116, 76)
            self._put(window, mask, LAND if desert else VEGETATION, rough, 0.86 + 0.14 * shade)
            grass = middle + 0.35 * fine > -0.12
            self._put_where(window, mask, grass, VEGETATION, tones.lawn, shade)
            fairway = np.abs(middle - 0.18) < 0.1
            bright = _scaled(tones.lawn, 1.16)
            self._put_where(window, mask, fairway, VEGETATION, bright, 1 + 0.05 * fine)
            bunker = (np.abs(middle - 0.32) < 0.1) & (fine > 0.62)
            self._put_where(window, mask, bunker, LAND, (226, 216, 192))
            self._put_where(window, mask, middle < -0.62, WATER, tones.deep)
        else:
            self._put(window, mask, LAND, _scaled(tones.sand, 0.7), shade)
            dense = middle + 0.6 * fine > -0.3
            self._put_where(window, mask, dense, VEGETATION, tones.crowns[0], 1.15 + 0.5 * fine)
            creek = np.abs(broad + 0.25 * middle) < 0.022
            self._put_where(window, mask, creek, WATER, tones.deep)

    def _put(
        self, window: tuple[slice, slice], mask: Bool, label: int, rgb: Rgb, shade: Field
    ) -> None:
        self._canvas.label[window][mask] = label
        colour = np.array(rgb[::-1], np.float32)
        self._canvas.albedo[window][mask] = np.clip(shade[:, None] * colour, 0, 255)

    def _put_where(
        self,
        window: tuple[slice, slice],
        mask: Bool,
        chosen: Bool,
        label: int,
        rgb: Rgb,
        shade: Field | None = None,
    ) -> None:
        """Like :meth:`_put` for the chosen ones of the mask's pixels, given as (n,) arrays."""
        part = mask.copy()
        part[mask] = chosen
        ones = np.ones(int(chosen.sum()), np.float32)
        self._put(window, part, label, rgb, ones if shade is None else shade[chosen])

    def _water_body(self) -> None:
        """Sea, river or lagoon, with a beach along the shore."""
        level = self._water_level()
        if level is None:
            return
        canvas = self._canvas
        beach = (level < 14 + 10 * self._middle) & (level >= 0)
        canvas.label[beach] = LAND
        sand = _scaled(self._tones.sand, 1.06)
        canvas.albedo[beach] = sand[::-1]
        canvas.blocked[level < 16] = 1
        canvas.label[level < 0] = WATER

    def _water_level(self) -> Field | None:
        """Signed distance-like field in metres, negative in water; None without a water body."""
        kind, rng = self._style.water, self._rng
        if kind == "none":
            return None
        size = self._canvas.size_px
        extent = size * self._canvas.gsd_m
        axis = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(
            self._canvas.gsd_m
        )
        x, y = axis[None, :], axis[:, None]
        angle = rng.uniform(0, 2 * np.pi)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        along = x * cos + y * sin - np.float32((cos + sin) * extent / 2)
        wobble = np.float32(130) * self._broad + np.float32(26) * self._middle
        wobble += np.float32(3) * self._fine
        if kind == "coast":
            return along + np.float32(rng.uniform(0.02, 0.3) * extent) + wobble
        if kind == "river":
            half_width = np.float32(rng.uniform(14, 45))
            return (
                np.abs(along + np.float32(0.9) * wobble) - half_width + np.float32(4) * self._middle
            )
        return np.float32(110) * (np.float32(0.62) - self._broad) + np.float32(18) * self._middle


def _colour_water(canvas: Canvas, tones: Tones, rng: np.random.Generator) -> None:
    """Colours all water of the label layer by its distance from the shore."""
    water = (canvas.label == WATER).astype(np.uint8)
    if not water.any():
        return
    shore_m = cv2.distanceTransform(water, cv2.DIST_L2, 5) * np.float32(canvas.gsd_m)
    hw = canvas.label.shape
    shoals = fractal_noise(rng, hw, 160 / canvas.gsd_m, octaves=4)
    reach = 30 + 45 * np.clip(shoals, 0, 1)
    depth = 1 - np.exp(-shore_m / reach)
    depth = np.clip(depth - 0.25 * np.clip(shoals, 0, 1), 0, 1)[:, :, None]
    shallow = np.array(tones.shallow[::-1], np.float32)
    deep = np.array(tones.deep[::-1], np.float32)
    colour = shallow + (deep - shallow) * depth
    wet = water.astype(bool)
    canvas.albedo[wet] = colour[wet].astype(np.uint8)


def _blend(target: NDArray[np.uint8], rgb: Rgb, shade: Field) -> None:
    """Fills an image with one colour times a field."""
    for channel, value in enumerate(rgb[::-1]):
        target[:, :, channel] = np.clip(shade * np.float32(value), 0, 255)


def _scaled(rgb: Rgb, factor: float) -> Rgb:
    red, green, blue = (min(250, round(v * factor)) for v in rgb)
    return red, green, blue
