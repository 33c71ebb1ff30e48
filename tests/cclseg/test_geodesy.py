import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cclseg.geodesy import SEMI_MAJOR_M, TangentPlane, to_cartesian, to_geodetic

places = st.tuples(st.floats(-90, 90), st.floats(-179.99, 179.99), st.floats(-400, 10_000))


@given(places)
def test_there_and_back_is_the_same_place(place):
    latitude, longitude, altitude = to_geodetic(to_cartesian(*place))
    assert latitude == pytest.approx(place[0], abs=1e-10)
    assert altitude == pytest.approx(place[2], abs=1e-6)
    if abs(place[0]) < 90:
        assert longitude == pytest.approx(place[1], abs=1e-9)


def test_known_places():
    np.testing.assert_allclose(to_cartesian(0, 0, 0), [SEMI_MAJOR_M, 0, 0])
    np.testing.assert_allclose(to_cartesian(0, 90, 0), [0, SEMI_MAJOR_M, 0], atol=1e-6)
    np.testing.assert_allclose(to_cartesian(90, 0, 0), [0, 0, 6356752.314245], atol=1e-6)


def test_the_formulas_are_those_of_proj():
    pyproj = pytest.importorskip("pyproj", reason="pyproj is not installed")
    rng = np.random.default_rng(0)
    lowest, highest = [-90, -180, -400], [90, 180, 10_000]
    latitude, longitude, altitude = rng.uniform(lowest, highest, (1000, 3)).T
    proj = pyproj.Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    expected = np.stack(proj.transform(longitude, latitude, altitude), axis=-1)
    np.testing.assert_allclose(to_cartesian(latitude, longitude, altitude), expected, atol=1e-6)


def test_the_tangent_plane_is_that_of_proj():
    pyproj = pytest.importorskip("pyproj", reason="pyproj is not installed")
    local = np.random.default_rng(1).uniform(-2000, 2000, (100, 3))
    proj = pyproj.Transformer.from_pipeline(
        "+proj=pipeline +step +inv +proj=topocentric +ellps=WGS84 +lat_0=-33.9 +lon_0=151.2 +h_0=80"
        " +step +inv +proj=cart +ellps=WGS84"
        " +step +proj=unitconvert +xy_in=rad +xy_out=deg"
    )
    longitude, latitude, altitude = proj.transform(*local.T)
    ours = TangentPlane(-33.9, 151.2, 80).geodetic(local)
    np.testing.assert_allclose(ours[:2], (latitude, longitude), atol=1e-9)
    np.testing.assert_allclose(ours[2], altitude, atol=1e-4)


@given(places, st.tuples(*[st.floats(-5000, 5000)] * 3))
def test_local_metres_there_and_back(place, local):
    plane = TangentPlane(*place)
    back = plane.local(*plane.geodetic(np.array(local)))
    np.testing.assert_allclose(back, local, atol=1e-5)
