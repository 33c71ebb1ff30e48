import numpy as np
import pytest

from cclseg.virtual import IDEAL_SENSOR, Sensor
from cclseg.virtual.sensor import random_sensor

RNG = np.random.default_rng


def grey(value=120, size_hw=(90, 131)):
    return np.full((*size_hw, 3), value, np.uint8)


def test_an_ideal_sensor_returns_the_light():
    image = RNG(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    np.testing.assert_array_equal(IDEAL_SENSOR.expose(image, RNG(0)), image)


def test_noise_has_the_stated_deviation_and_no_bias():
    noisy = Sensor(blur_px=0, vignette=0, noise=4.0).expose(grey(), RNG(1)).astype(float)
    assert noisy.std() == pytest.approx(4.0, rel=0.1)
    assert noisy.mean() == pytest.approx(120, abs=0.6)
    channels = noisy.reshape(-1, 3) - 120
    assert abs(np.corrcoef(channels.T)[0, 1]) < 0.1


def test_vignette_darkens_the_corners_by_its_share():
    image = Sensor(blur_px=0, vignette=0.2, noise=0).expose(grey(200), RNG(0))
    assert image[0, 0, 0] == pytest.approx(160, abs=2)
    assert image[45, 65, 0] >= 199


def test_gain_is_blue_green_red():
    image = Sensor(gain=(0.5, 1.0, 1.5), blur_px=0, vignette=0, noise=0).expose(grey(100), RNG(0))
    assert image[0, 0].tolist() == [50, 100, 150]


def test_expose_does_not_write_into_its_input():
    image = grey()
    random_sensor(RNG(3)).expose(image, RNG(4))
    assert (image == 120).all()
