"""Vegetation indices inside the network: their formulas, their bands, and dark pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cclseg.errors import InputError
from cclseg_trainer.model_config import INDEX_NAMES
from cclseg_trainer.models import build_model
from cclseg_trainer.models.indices import VegetationIndices

BANDS = ("red", "green", "blue", "nir")


def network(**changes):
    return build_model("ccl-nano", **({"in_bands": 4, "band_names": BANDS} | changes))


def test_indices_are_those_of_the_literature():
    red, green, blue, nir = (
        np.random.default_rng(0).integers(0, 256, (4, 1, 16, 16)).astype(np.float64) / 255
    )
    hazeless = 2 * red - blue
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = [
            (nir - red) / (nir + red),
            (nir - hazeless) / (nir + hazeless),
            1.5 * (nir - red) / (nir + red + 0.5),
            (2 * green - red - blue) / (red + green + blue),
            (green - red) / (green + red - blue),
        ]
    layer = VegetationIndices(network(indices=INDEX_NAMES).config)
    raw = torch.from_numpy(np.stack([red, green, blue, nir], 1)) * 255
    found = layer((raw - 127) / 128)
    torch.testing.assert_close(found[:, :4], (raw - 127) / 128)
    for plane, values in zip(found[0, 4:].numpy(), expected, strict=True):
        # Where the divisor is below a quarter of an 8-bit step, it is 0 but for rounding.
        defined = np.isfinite(values[0]) & (np.abs(values[0]) < 200)
        np.testing.assert_allclose(plane[defined], np.clip(values[0], -2, 2)[defined], atol=1e-6)


@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_pixels_have_finite_indices_and_gradients(value):
    layer = VegetationIndices(network(indices=INDEX_NAMES).config)
    x = torch.full((1, 4, 2, 2), (value - 127) / 128, requires_grad=True)
    found = layer(x)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(x.grad).all()


def test_units_of_the_bands_are_those_of_the_data():
    config = network(
        indices=("savi",), band_gain=(2.0, 1, 1, 4.0), band_offset=(0.5, 0, 0, 1.0)
    ).config
    x = torch.tensor([0.1, 0.0, 0.0, 0.2]).reshape(1, 4, 1, 1)
    red, nir = 0.5 + 2 * 0.1, 1 + 4 * 0.2
    expected = 1.5 * (nir - red) / (nir + red + 0.5)
    assert VegetationIndices(config)(x)[0, 4].item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_bands": 3, "band_names": (), "indices": ("ndvi",)}, "needs the bands nir, red"),
        ({"band_names": (), "indices": ("exg",)}, "bands without names; name them in order"),
        ({"indices": ("ndvy",)}, "did you mean 'ndvi'"),
    ],
)
def test_an_index_that_cannot_be_computed_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        network(**changes)


def test_three_bands_are_red_green_and_blue():
    model = build_model("unet-lite0", indices=("exg", "vari")).eval()
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 2, 64, 64)
