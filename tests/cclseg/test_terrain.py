import dataclasses
import math

import numpy as np
import pytest

rasterio = pytest.importorskip("rasterio", reason="rasterio (extra geo) is not installed")

from cclseg.errors import InputError  # noqa: E402
from cclseg.footprint import FlatGround, GroundView  # noqa: E402
from cclseg.geodesy import TangentPlane  # noqa: E402
from cclseg.pose import Camera, Pose  # noqa: E402
from cclseg.terrain import TerrainGround  # noqa: E402

SIZE = (720, 1280)
CAMERA = Camera(1000.0, SIZE)
CENTRE = np.array([[640.0, 360.0]])
LATITUDE, LONGITUDE = 47.0, 9.0  # on the central meridian of UTM zone 32


def pose(*, pitch=-90.0, altitude=600.0, height=None):
    return Pose(LATITUDE, LONGITUDE, altitude, height, yaw_deg=90.0, pitch_deg=pitch, roll_deg=0.0)


def write_terrain(path, heights_of, *, crs="EPSG:32632", cell_m=5.0, count=800, nodata=-9999):
    """Writes heights by metres east and north of the camera."""
    warp = pytest.importorskip("rasterio.warp")
    (x,), (y,) = warp.transform("EPSG:4326", "EPSG:32632", [LONGITUDE], [LATITUDE])
    half = count * cell_m / 2
    north, east = np.mgrid[half:-half:-cell_m, -half:half:cell_m] + [
        [[-cell_m / 2]],
        [[cell_m / 2]],
    ]
    place = rasterio.Affine(cell_m, 0, x - half, 0, -cell_m, y + half)
    profile = {"driver": "GTiff", "height": count, "width": count, "count": 1, "nodata": nodata}
    with rasterio.open(path, "w", dtype="float32", crs=crs, transform=place, **profile) as raster:
        raster.write(heights_of(east, north).astype(np.float32), 1)
    return path


@pytest.fixture
def slope(tmp_path):
    """Ground at 500 m below the camera that rises by 1 in 10 to the east."""
    path = write_terrain(tmp_path / "slope.tif", lambda east, north: 500 + east / 10)
    with TerrainGround(path) as terrain:
        yield terrain


def view(pose, ground=None):
    return GroundView(pose, CAMERA, SIZE, ground)


@pytest.mark.parametrize("pitch", [-90.0, -60.0, -30.0, -15.0])
def test_a_ray_ends_where_it_meets_a_slope(slope, pitch):
    ((east, north, up),) = view(pose(pitch=pitch), slope).local_m(CENTRE)
    expected = 100 / (math.tan(math.radians(-pitch)) + 0.1)
    # UTM shrinks by 0.0004 here, and so do the heights along a slope; cells are 5 m wide.
    assert east == pytest.approx(expected, abs=0.05 + 1e-3 * expected)
    assert north == pytest.approx(0, abs=0.01)
    assert up == pytest.approx(-100 + expected / 10, abs=0.1)


def test_level_terrain_is_flat_ground(tmp_path):
    path = write_terrain(tmp_path / "level.tif", lambda east, _: np.full_like(east, 480.0))
    with TerrainGround(path) as terrain:
        ours = view(pose(pitch=-35.0), terrain)
        flat = view(pose(pitch=-35.0, height=120.0), FlatGround())
        ring = flat.frame_ring()
        np.testing.assert_allclose(ours.local_m(ring), flat.local_m(ring), atol=1e-3)
        assert ours.gsd_m == pytest.approx(flat.gsd_m)


def test_a_hill_hides_what_is_behind_it(tmp_path):
    def wall(east, north):
        return np.where(np.abs(east - 200) < 10, 570.0, 500.0)

    with TerrainGround(write_terrain(tmp_path / "wall.tif", wall)) as terrain:
        ((east, _, up),) = view(pose(pitch=-15.0), terrain).local_m(CENTRE)
    assert 184 < east < 197  # its near side, not the ground 373 m ahead
    assert -100 < up < -30


def test_without_an_altitude_the_height_counts_from_the_terrain(slope):
    by_height = view(pose(altitude=None, height=100.0, pitch=-45.0), slope)
    by_altitude = view(pose(pitch=-45.0), slope)
    np.testing.assert_allclose(by_height.local_m(CENTRE), by_altitude.local_m(CENTRE), atol=0.01)


def test_a_flight_reads_the_terrain_once(slope, monkeypatch):
    reads = []
    read = TerrainGround._read
    monkeypatch.setattr(
        TerrainGround, "_read", lambda *arguments: reads.append(1) or read(*arguments)
    )
    plane = TangentPlane(LATITUDE, LONGITUDE)
    for metres in range(0, 50, 5):
        latitude, longitude, _ = plane.geodetic(np.array([metres, 0.0, 0.0]))
        here = dataclasses.replace(
            pose(), latitude_deg=float(latitude), longitude_deg=float(longitude)
        )
        ((_, _, up),) = view(here, slope).local_m(CENTRE)
        assert up == pytest.approx(-100 + metres / 10, abs=0.05)
    assert len(reads) <= 3


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        (dataclasses.replace(pose(), longitude_deg=12.0), "no heights at 47.000000, 12.000000"),
        (pose(altitude=400.0), "the camera is at 400.0 m, the terrain"),
        (pose(altitude=None), "neither the camera's altitude nor its height"),
    ],
)
def test_what_cannot_be_is_refused(slope, camera, message):
    with pytest.raises(InputError, match=message):
        view(camera, slope).local_m(CENTRE)


def test_holes_in_the_terrain_are_no_ground(tmp_path):
    path = write_terrain(
        tmp_path / "hole.tif", lambda east, north: np.where(east > 40, -9999.0, 500.0)
    )
    with TerrainGround(path) as terrain, pytest.raises(InputError, match="no heights where"):
        view(pose(pitch=-45.0), terrain).local_m(CENTRE)


def test_a_raster_without_a_place_is_refused(tmp_path):
    path = write_terrain(tmp_path / "nowhere.tif", lambda east, _: east, crs=None, count=8)
    with pytest.raises(InputError, match="where on the earth"):
        TerrainGround(path)


def test_a_file_that_is_no_raster_is_refused(tmp_path):
    (tmp_path / "dem.tif").write_text("no heights")
    with pytest.raises(InputError, match="cannot read the terrain model"):
        TerrainGround(tmp_path / "dem.tif")
