"""Vegetation indices: ratios of bands that the network computes from its own input.

They are part of the network, so a model file takes the same bands with and without them. Ratios
stay in floating point where a file is INT8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cclseg.errors import InputError
from cclseg.suggest import did_you_mean

if TYPE_CHECKING:
    from ..model_config import Index, ModelConfig

_EPS = 1e-3  # of a reflectance: below one step of 8-bit bands, so any real sum stays as it is
_LARGEST = 2.0
_RGB = ("red", "green", "blue")
_EIGHT_BIT = 128 / 255, 127 / 255  # gain and offset of (value - 127) / 128


def ratio(above: Tensor, below: Tensor) -> Tensor:
    """Divides, with a divisor of at least ``_EPS`` by magnitude, and clips to [-2, 2]."""
    divisor = torch.where(below.abs() < _EPS, torch.full_like(below, _EPS), below)
    return (above / divisor).clamp(-_LARGEST, _LARGEST)


def ndvi(nir: Tensor, red: Tensor) -> Tensor:
    """Normalised difference, (N - R) / (N + R): how green the leaves are (Rouse 1974)."""
    return ratio(nir - red, nir + red)


def arvi(nir: Tensor, red: Tensor, blue: Tensor) -> Tensor:
    """NDVI with 2 R - B for R, which takes haze out (Kaufman and Tanre 1992, gamma = 1)."""
    clear = 2 * red - blue
    return ratio(nir - clear, nir + clear)


def savi(nir: Tensor, red: Tensor) -> Tensor:
    """1.5 (N - R) / (N + R + 0.5), which takes bare soil out (Huete 1988, L = 0.5)."""
    return ratio(1.5 * (nir - red), nir + red + 0.5)


def exg(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    """Excess green, (2 G - R - B) / (R + G + B), from colours alone (Woebbecke 1995)."""
    return ratio(2 * green - red - blue, red + green + blue)


def vari(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    """(G - R) / (G + R - B), from colours alone, little changed by haze (Gitelson 2002)."""
    return ratio(green - red, green + red - blue)


INDICES: dict[Index, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    "ndvi": (ndvi, ("nir", "red")),
    "arvi": (arvi, ("nir", "red", "blue")),
    "savi": (savi, ("nir", "red")),
    "exg": (exg, _RGB),
    "vari": (vari, _RGB),
}
"""Each index, and the bands that its function takes, as reflectances in [0, 1]."""


class VegetationIndices(nn.Module):
    """Puts indices behind the bands: (N, C, H, W) normalised -> (N, C + indices, H, W).

    Args:
        config: Names the indices and the bands, and says how an input becomes a reflectance.

    Raises:
        InputError: An index needs a band that is not there.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        names = config.band_names or (_RGB if config.in_bands == 3 else ())
        check_bands(config.indices, names)
        self.indices = config.indices
        self.places = {name: place for place, name in enumerate(names)}
        gain, offset = _EIGHT_BIT
        self.gain = config.band_gain or (gain,) * config.in_bands
        self.offset = config.band_offset or (offset,) * config.in_bands

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + indices, H, W)."""
        planes = [x]
        for index in self.indices:
            function, bands = INDICES[index]
            planes.append(function(*(self.reflectance(x, band) for band in bands)))
        return torch.cat(planes, 1)

    def reflectance(self, x: Tensor, band: str) -> Tensor:
        """Takes one band out of an input, (N, 1, H, W), 0 black and 1 white."""
        place = self.places[band]
        return self.offset[place] + self.gain[place] * x[:, place : place + 1]


def check_bands(indices: tuple[Index, ...], band_names: tuple[str, ...]) -> None:
    """Refuses indices of bands that are not there.

    Raises:
        InputError: Names the index, the bands that it needs, and those that there are.
    """
    for index in indices:
        if index not in INDICES:
            raise InputError(f"no index '{index}'; {did_you_mean(index, INDICES)}")
        _, needed = INDICES[index]
        if not set(needed) <= set(band_names):
            raise InputError(
                f"the index {index} needs the bands {', '.join(needed)}, the input has "
                f"{', '.join(band_names) or 'bands without names'}; name them in order: "
                "--bands red,green,blue,nir"
            )
