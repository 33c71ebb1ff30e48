"""Paints the ground of a scene: terrain, patches of land use, garden walls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .canvas import VERGE
from .classes import LAND, ROAD, VEGETATION, WATER
from .tones import CROPS, SANDS, SOILS, scaled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .canvas import Canvas
    from .noise import Field
    from .plan import Patch, Plan, Rgb
    from .style import SceneStyle
    from .terrain import Terrain
    from .tones import Tones

    Bool = NDArray[np.bool_]
    Window = tuple[slice, slice]

_NATURAL = ("golf", "park", "wild", "scrub")


class GroundPainter:
    """Paints everything that lies flat.

    Args:
        canvas: Layers to paint on.
        terrain: Noise that decides what lies where in natural patches.
        tones: Colours.
        style: Choices of the scene.
        rng: Source of randomness.
    """

    def __init__(
        self,
        canvas: Canvas,
        terrain: Terrain,
        tones: Tones,
        style: SceneStyle,
        rng: np.random.Generator,
    ) -> None:
        self._canvas = canvas
        self._terrain = terrain
        self._tones = tones
        self._style = style
        self._rng = rng

    def paint(self, plan: Plan) -> None:
        """Paints open ground, then patches, then garden walls."""
        if self._style.climate == "desert":
            self._desert()
        else:
            self._meadows()
        for patch in plan.patches:
            if patch.kind != "pool" and not self._canvas.is_outside(patch.outline):
                self._patch(patch)
        if self._canvas.gsd_m <= 0.8:
            for line in plan.walls:
                if not self._canvas.is_outside(line):
                    rgb = scaled(self._tones.paving, 1.14)
                    self._canvas.stroke(line, 0.3, label=LAND, rgb=rgb)

    def paint_pools(self, plan: Plan) -> None:
        """Paints swimming pools on what is still open ground."""
        for patch in plan.patches:
            if patch.kind == "pool" and not self._canvas.is_outside(patch.outline):
                mask, window = self._canvas.mask_of(patch.outline)
                under = self._canvas.label[window][mask]
                if not ((under == WATER) | (under == ROAD)).any():
                    self._patch(patch)

    def _desert(self) -> None:
        """Sand with darker gravel flats and a few shrubs, too small for a class."""
        canvas, terrain = self._canvas, self._terrain
        gravel = np.clip((terrain.broad + 0.5 * terrain.middle - 0.35) * 2.2, 0, 1) * 0.42
        shade = 1 - gravel + 0.05 * terrain.middle + 0.03 * terrain.fine
        _paint(canvas.albedo, self._tones.sand, shade)
        shrubs = (terrain.fine > 0.74) & (terrain.broad > 0.05)
        canvas.albedo[shrubs] = (canvas.albedo[shrubs] * 0.66).astype(np.uint8)

    def _meadows(self) -> None:
        """Grassland with bare spots."""
        canvas, terrain = self._canvas, self._terrain
        grass = terrain.middle + 0.4 * terrain.broad > -0.3
        _paint(canvas.albedo, SOILS[2], 1 + 0.12 * terrain.middle)
        green = np.empty_like(canvas.albedo)
        _paint(green, self._tones.lawn, 1 + 0.12 * terrain.middle + 0.12 * terrain.fine)
        canvas.albedo[grass] = green[grass]
        canvas.label[grass] = VEGETATION

    def _patch(self, patch: Patch) -> None:
        mask, window = self._canvas.mask_of(patch.outline)
        if patch.kind in _NATURAL:
            _NaturalPatch(self._canvas, self._terrain, window, mask).paint(
                patch.kind, self._tones, desert=self._style.climate == "desert"
            )
            return
        label, rgb, spread = self._surface(patch)
        terrain = self._terrain
        uneven = terrain.middle[window][mask] + terrain.fine[window][mask]
        shade = np.float32(np.clip(patch.shade, 0.6, 1.4)) + np.float32(spread) * uneven
        if patch.furrow_rad is not None:
            shade = shade + self._stripes(patch, mask, window)
        _put(self._canvas, window, mask, (label, rgb), shade)
        if patch.kind == "verge":
            self._canvas.blocked[window][mask] = VERGE

    def _surface(self, patch: Patch) -> tuple[int, Rgb, float]:
        """Class, colour and unevenness of a plain patch."""
        rng, tones = self._rng, self._tones
        desert = self._style.climate == "desert"
        crops, soils = CROPS[self._style.season], SANDS if desert else SOILS
        surfaces: dict[str, tuple[int, Rgb, float]] = {
            "lawn": (VEGETATION, tones.lawn, 0.11),
            "soil": (LAND, soils[int(rng.integers(len(soils)))], 0.08),
            "graded": (LAND, tones.sand if desert else SOILS[2], 0.07),
            "crop": (VEGETATION, crops[int(rng.integers(len(crops)))], 0.07),
            "paving": (LAND, tones.paving, 0.07),
            "yard": (LAND, tones.paving, 0.06),
            "parking": (ROAD, tones.street, 0.05),
            "pool": (WATER, (84, 140, 160), 0.02),
            "verge": (LAND, tones.sand, 0.07) if desert else (VEGETATION, tones.lawn, 0.1),
        }
        label, rgb, spread = surfaces[patch.kind]
        return label, patch.rgb or rgb, spread

    def _stripes(self, patch: Patch, mask: Bool, window: Window) -> Field:
        """Brightness of stripes along a direction: furrows, mowing, bays of car parks."""
        gsd = self._canvas.gsd_m
        y, x = np.nonzero(mask)
        angle = float(patch.furrow_rad or 0.0)
        east, south = (x + window[1].start) * gsd, (y + window[0].start) * gsd
        across = south * np.cos(angle) - east * np.sin(angle)
        stripes: Field
        if patch.kind == "parking":
            stripes = np.where(np.mod(across, 8.0) < max(0.3, gsd), 0.3, 0.0)
        elif patch.kind == "lawn":
            stripes = 0.05 * np.sign(np.sin(across * (2 * np.pi / 11)))
        else:
            pitch_m = max(2.6, 3 * gsd)
            wheels = (np.mod(across, pitch_m * 8) < pitch_m * 0.7) & (patch.kind == "crop")
            stripes = 0.07 * np.sin(across * (2 * np.pi / pitch_m)) - 0.1 * wheels
        return stripes.astype(np.float32)


class _NaturalPatch:
    """A patch whose inner borders are irregular: noise decides what lies where."""

    def __init__(self, canvas: Canvas, terrain: Terrain, window: Window, mask: Bool) -> None:
        self._canvas, self._window, self._mask = canvas, window, mask
        self._broad = terrain.broad[window][mask]
        self._middle = terrain.middle[window][mask]
        self._fine = terrain.fine[window][mask]

    def paint(self, kind: str, tones: Tones, *, desert: bool) -> None:
        """Paints the patch as golf course, park, wood floor ("wild") or salt marsh ("scrub")."""
        shade = 1 + 0.1 * self._middle + 0.12 * self._fine
        if kind == "wild":
            self._put(VEGETATION, scaled(tones.crowns[0], 0.8), shade)
        elif kind == "park":
            self._put(VEGETATION, tones.lawn, shade)
            self._put(LAND, tones.kerb, shade, where=np.abs(self._middle - 0.12) < 0.02)
            self._put(WATER, tones.deep, shade, where=self._middle - 0.3 * self._broad > 0.62)
        elif kind == "golf":
            self._golf(tones, shade, desert=desert)
        else:
            self._put(LAND, scaled(tones.sand, 0.7), shade)
            dense = self._middle + 0.6 * self._fine > -0.3
            leaves = 1.15 + 0.5 * self._fine
            self._put(VEGETATION, tones.crowns[0], leaves, where=dense)
            creek = np.abs(self._broad + 0.25 * self._middle) < 0.022
            self._put(WATER, tones.deep, shade, where=creek)

    def _golf(self, tones: Tones, shade: Field, *, desert: bool) -> None:
        if desert:
            self._put(LAND, tones.sand, 0.86 + 0.1 * shade)
        else:
            self._put(VEGETATION, scaled(tones.lawn, 0.86), shade)
        rough = self._middle + 0.35 * self._fine > -0.12
        fairway = np.abs(self._middle - 0.18) < 0.1
        bunker = (np.abs(self._middle - 0.32) < 0.12) & (self._fine > 0.62)
        self._put(VEGETATION, tones.lawn, shade, where=rough)
        self._put(VEGETATION, scaled(tones.lawn, 1.16), 1 + 0.05 * self._fine, where=fairway)
        self._put(LAND, (218, 210, 188), shade, where=bunker)
        self._put(WATER, tones.deep, shade, where=self._middle < -0.62)

    def _put(self, label: int, rgb: Rgb, shade: Field, *, where: Bool | None = None) -> None:
        mask = self._mask
        if where is not None:
            mask = mask.copy()
            mask[self._mask] = where
            shade = shade[where]
        _put(self._canvas, self._window, mask, (label, rgb), shade)


def _put(
    canvas: Canvas, window: Window, mask: Bool, surface: tuple[int, Rgb], shade: Field
) -> None:
    """Paints the pixels of a mask: ``shade`` has one factor per pixel."""
    label, rgb = surface
    canvas.label[window][mask] = label
    colour = np.array(rgb[::-1], np.float32)
    canvas.albedo[window][mask] = np.clip(shade[:, None] * colour, 0, 255)


def _paint(target: NDArray[np.uint8], rgb: Rgb, shade: Field) -> None:
    """Fills an image with one colour times a field."""
    for channel, value in enumerate(rgb[::-1]):
        target[:, :, channel] = np.clip(shade * np.float32(value), 0, 255)
