import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from cclseg.errors import InputError
from cclseg.virtual import SceneStyle, build_world
from cclseg.virtual.classes import BUILDING, LAND, ROAD, VEGETATION, WATER

SIZE_PX = 640
CITY = SceneStyle(urban_density=1.0, road_pattern="grid")

_DIGEST = """
import cv2, hashlib, sys
cv2.setNumThreads(int(sys.argv[1]))
from cclseg.virtual import build_world
world = build_world(11, size_px=640, gsd_m=0.8)
print(hashlib.sha256(world.image.tobytes() + world.label.tobytes()).hexdigest())
"""


def digest(world):
    return hashlib.sha256(world.image.tobytes() + world.label.tobytes()).hexdigest()


def shares(world):
    return np.bincount(world.label.ravel(), minlength=5) / world.label.size


@pytest.fixture(scope="module")
def city():
    return build_world(5, style=CITY, size_px=SIZE_PX, gsd_m=0.8)


def test_a_world_is_an_image_with_a_label_for_every_pixel(city):
    assert city.image.shape == (SIZE_PX, SIZE_PX, 3)
    assert city.image.dtype == city.label.dtype == np.uint8
    assert city.label.shape == (SIZE_PX, SIZE_PX)
    assert city.label.max() <= WATER
    assert city.extent_m == pytest.approx(SIZE_PX * 0.8)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_bytes_in_another_process_on_any_threads(threads):
    here = digest(build_world(11, size_px=SIZE_PX, gsd_m=0.8))
    there = subprocess.run(
        [sys.executable, "-c", _DIGEST, str(threads)], capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == here


def test_another_seed_gives_another_world(city):
    other = build_world(6, style=CITY, size_px=SIZE_PX, gsd_m=0.8)
    assert (other.label != city.label).mean() > 0.2


def test_class_shares_of_a_fixed_world_stay_what_they_were():
    # Shares instead of a hash: sines of the plan may differ in the last bit between builds of
    # numpy, which can move an edge by a pixel.
    style = SceneStyle(climate="temperate", water="river", road_pattern="organic")
    found = shares(build_world(3, style=style, size_px=SIZE_PX, gsd_m=1.0))
    np.testing.assert_allclose(found, [0.0501, 0.2107, 0.2624, 0.376, 0.1008], atol=0.002)


def test_a_city_has_roads_and_houses_and_no_sea(city):
    share = shares(city)
    assert share[BUILDING] > 0.08
    assert 0.05 < share[ROAD] < 0.4
    assert share[WATER] < 0.1


@pytest.mark.parametrize("climate", ["desert", "temperate"])
@pytest.mark.parametrize("pattern", ["grid", "organic", "radial"])
def test_every_style_renders(climate, pattern):
    style = SceneStyle(climate=climate, road_pattern=pattern, water="lagoon")
    world = build_world(2, style=style, size_px=320, gsd_m=1.6)
    assert world.image.std() > 8
    assert (shares(world) > 0).sum() >= 3


def test_water_bodies_are_water():
    dry, wet = (
        build_world(4, style=SceneStyle(water=water), size_px=512, gsd_m=1.5)
        for water in ("none", "coast")
    )
    assert shares(wet)[WATER] > shares(dry)[WATER] + 0.1


def test_the_country_is_greener_than_the_desert():
    green, bare = (
        shares(build_world(8, style=SceneStyle(climate=c, urban_density=0.1), size_px=512))
        for c in ("temperate", "desert")
    )
    assert green[VEGETATION] > 0.4
    assert bare[LAND] > green[LAND]


def test_buildings_throw_shadows_away_from_the_sun():
    # A hall-sized shift towards and away from the sun: the side away is darker.
    style = SceneStyle(urban_density=1.0, sun_azimuth_deg=90, sun_elevation_deg=35, haze=0)
    world = build_world(9, style=style, size_px=768, gsd_m=0.8)
    grey = world.image.mean(axis=2)
    building = world.label == BUILDING
    land = world.label == LAND
    shift = 5
    west = land[:, :-shift] & building[:, shift:]
    east = land[:, shift:] & building[:, :-shift]
    assert west.sum() > 500
    assert grey[:, :-shift][west].mean() < 0.7 * grey[:, shift:][east].mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"size_px": 100}, "size_px is 100"), ({"gsd_m": 9.0}, "gsd_m is 9.0")],
)
def test_sizes_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        build_world(0, **arguments)


def test_rendering_leaves_the_thread_count_alone(city):
    before = cv2.getNumThreads()
    build_world(1, size_px=256)
    assert cv2.getNumThreads() == before
