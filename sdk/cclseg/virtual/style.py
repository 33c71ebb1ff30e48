"""What a virtual scene looks like: one frozen record of choices."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ..errors import InputError
from ..suggest import did_you_mean

Climate = Literal["desert", "temperate"]
Season = Literal["spring", "summer", "autumn", "winter"]
RoadPattern = Literal["grid", "organic", "radial"]
WaterBody = Literal["none", "coast", "river", "lagoon"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneStyle:
    """Choices that shape a virtual scene; the seed decides everything else.

    Attributes:
        climate: "desert" (sand, villas, towers, date palms) or "temperate" (fields, forests).
        season: Colours of crops and trees; without effect in a desert.
        road_pattern: "grid", "organic" (bent) or "radial" (rings around a centre).
        water: Large water body of the scene.
        urban_density: Share of built-up blocks, in [0, 1].
        sun_azimuth_deg: Direction of the sun, clockwise from the top of the scene.
        sun_elevation_deg: Height of the sun above the horizon, in [15, 85].
        haze: Share of the contrast that the air takes away, in [0, 0.6].
        contrast: Gain around middle grey; satellite images are often stretched (1.3).
        saturation: Strength of colours; 1 is natural, satellite images of sand near 0.5.

    Example:
        >>> SceneStyle(climate="temperate", season="autumn", water="river").road_pattern
        'organic'
    """

    climate: Climate = "desert"
    season: Season = "summer"
    road_pattern: RoadPattern = "organic"
    water: WaterBody = "none"
    urban_density: float = 0.7
    sun_azimuth_deg: float = 135.0
    sun_elevation_deg: float = 48.0
    haze: float = 0.05
    contrast: float = 1.1
    saturation: float = 0.8

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            value = getattr(self, name)
            if value not in kind:
                raise InputError(f"{name} is '{value}'; {did_you_mean(str(value), kind)}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} is {value}; expected a number in {low}..{high}")


_CHOICES = {
    "climate": get_args(Climate),
    "season": get_args(Season),
    "road_pattern": get_args(RoadPattern),
    "water": get_args(WaterBody),
}
_RANGES = {
    "urban_density": (0.0, 1.0),
    "sun_azimuth_deg": (-360.0, 360.0),
    "sun_elevation_deg": (15.0, 85.0),
    "haze": (0.0, 0.6),
    "contrast": (0.5, 2.0),
    "saturation": (0.0, 1.5),
}


def random_style(rng: np.random.Generator, *, desert_share: float = 0.7) -> SceneStyle:
    """Draws a style.

    Args:
        rng: Source of randomness.
        desert_share: Probability of the climate "desert".
    """
    desert = bool(rng.random() < desert_share)
    style = SceneStyle(
        climate="desert" if desert else "temperate",
        season=_pick(rng, get_args(Season), (0.3, 0.4, 0.2, 0.1)),
        road_pattern=_pick(rng, get_args(RoadPattern), (0.35, 0.45, 0.2)),
        water=_pick(rng, get_args(WaterBody), (0.35, 0.3, 0.1, 0.25)),
        urban_density=float(np.clip(rng.normal(0.7, 0.22), 0.05, 1.0)),
        sun_azimuth_deg=float(rng.uniform(95, 265)),
        sun_elevation_deg=float(rng.uniform(30, 65)),
        haze=float(rng.beta(1.2, 9.0) * 0.6),
        contrast=float(rng.uniform(1.0, 1.45)),
        saturation=float(rng.uniform(0.35, 0.9)),
    )
    return style if desert else dataclasses.replace(style, saturation=style.saturation * 1.3)


def _pick(rng: np.random.Generator, values: tuple[Any, ...], shares: tuple[float, ...]) -> Any:  # noqa: ANN401 - any literal
    return values[int(rng.choice(len(values), p=shares))]
