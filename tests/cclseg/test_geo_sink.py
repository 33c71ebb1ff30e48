"""Lines of GeoJSON: what other programs read from them."""

import dataclasses
import json

import numpy as np
import pytest
from contracts import item

from cclseg import open_sink
from cclseg.errors import InputError
from cclseg.footprint import GroundView
from cclseg.frame import Frame
from cclseg.geojson import frame_feature, region_features
from cclseg.pose import Camera, Pose
from cclseg.result import Segmentation
from cclseg.sinks.geo import GeoOptions

DOWN = Pose(47.0, 8.0, 500.0, 100.0, yaw_deg=0.0, pitch_deg=-90.0, roll_deg=0.0)


def placed(index=0, *, pose=DOWN, size_hw=(48, 64)):
    frame, result = item(index, size_hw=size_hw)
    return dataclasses.replace(frame, pose=pose, camera=Camera(50.0, size_hw)), result


def written(path, items, **options):
    with open_sink(path, geo=GeoOptions(**options)) as sink:
        for frame, result in items:
            sink.write(frame, result)
    return [json.loads(line) for line in path.read_text().splitlines()]


def signed_area(ring):
    x, y = np.array(ring[:-1]).T
    return (x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def test_a_line_a_frame_with_its_footprint(tmp_path):
    frame, result = placed()
    first, second = written(tmp_path / "a.geojsonl", [(frame, result), placed(1)])
    assert (first["type"], first["geometry"]["type"]) == ("Feature", "Polygon")
    (ring,) = first["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    assert len(ring) == 5
    assert signed_area(ring) > 0  # counter-clockwise, longitude first
    (west, south), (east, north) = np.min(ring, axis=0), np.max(ring, axis=0)
    assert west < 8 < east
    assert south < 47 < north
    properties = first["properties"]
    assert properties["frame"] == "frame_0"
    assert properties["gsd_m"] == pytest.approx(2.0)
    assert properties["area_m2"] == pytest.approx(48 * 64 * 4)
    assert properties["fractions"] == pytest.approx(result.fractions(), abs=1e-6)
    assert properties["pose"]["yaw_deg"] == 0
    assert second["properties"]["frame"] == "frame_1"


def test_regions_cover_the_frame_and_say_how_sure_they_are(tmp_path):
    frame, result = placed()
    features = written(tmp_path / "a.geojsonl", [(frame, result)], regions=True)
    regions = [one["properties"] for one in features if one["properties"]["kind"] == "region"]
    assert sum(region["area_px"] for region in regions) == 48 * 64
    assert sum(region["area_m2"] for region in regions) == pytest.approx(48 * 64 * 4)
    for name, share in result.fractions().items():
        area_m2 = sum(region["area_m2"] for region in regions if region["class"] == name)
        assert area_m2 == pytest.approx(share * 48 * 64 * 4)
        mine = [region for region in regions if region["class"] == name]
        mean = sum(region["confidence"] * region["area_px"] for region in mine)
        of_class = result.mask == result.class_names.index(name)
        assert mean == pytest.approx(float(result.confidence[of_class].sum()), rel=1e-5)


def test_a_hole_is_left_out_and_runs_clockwise(tmp_path):
    frame, result = placed()
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 10:30] = 1
    result = Segmentation(mask, result._logits, result._spec)
    _, outer, inner = written(tmp_path / "a.geojsonl", [(frame, result)], regions=True)
    around, hole = outer["geometry"]["coordinates"]
    assert signed_area(around) > 0 > signed_area(hole)
    assert outer["properties"]["area_m2"] == pytest.approx((48 * 64 - 200) * 4)
    assert inner["properties"]["area_m2"] == pytest.approx(200 * 4)
    of_hole = float(result.confidence[mask == 1].mean())
    assert inner["properties"]["confidence"] == pytest.approx(of_hole, rel=1e-5)


def test_small_regions_are_left_out_on_request(tmp_path):
    features = written(tmp_path / "a.geojsonl", [placed()], regions=True, min_area_m2=2000.0)
    areas = [one["properties"]["area_m2"] for one in features[1:]]
    assert areas
    assert min(areas) >= 2000


def test_simplified_outlines_are_shorter_valid_and_near(tmp_path):
    shapely = pytest.importorskip("shapely", reason="shapely (extra geo) is not installed")
    disc = np.hypot(*np.mgrid[-40:40, -40:40]) < 35
    mask = (disc & ~(np.hypot(*np.mgrid[-40:40, -40:40]) < 9)).astype(np.uint8)
    frame, result = placed(size_hw=(80, 80))
    items = [(frame, Segmentation(mask, result._logits, result._spec))]
    exact = written(tmp_path / "a.geojsonl", items, regions=True)
    fewer = written(tmp_path / "b.geojsonl", items, regions=True, simplify_px=1.0)
    assert (tmp_path / "b.geojsonl").stat().st_size < (tmp_path / "a.geojsonl").stat().st_size / 2
    for before, after in zip(exact, fewer, strict=True):
        assert before["properties"] == after["properties"]
        one, other = (shapely.geometry.shape(each["geometry"]) for each in (before, after))
        assert other.is_valid
        metre = 180 / np.pi / 6.37e6 / np.cos(np.deg2rad(47))
        assert one.hausdorff_distance(other) <= 2.0 * 1.01 * metre  # a pixel is 2 m wide


def test_geometries_are_valid_to_others(tmp_path):
    shapely = pytest.importorskip("shapely", reason="shapely is not installed")
    for feature in written(tmp_path / "a.geojsonl", [placed(3)], regions=True):
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.is_valid, shapely.is_valid_reason(shape)


@pytest.mark.parametrize("longitude", [180.0, -180.0, 179.9999, -179.9999])
def test_a_footprint_across_the_antimeridian_is_cut_there(tmp_path, longitude):
    pose = dataclasses.replace(DOWN, longitude_deg=longitude)
    feature, *_ = written(tmp_path / "a.geojsonl", [placed(pose=pose)], regions=True)
    assert feature["geometry"]["type"] == "MultiPolygon"
    parts = [np.array(rings[0]) for rings in feature["geometry"]["coordinates"]]
    assert len(parts) == 2
    for part in parts:
        assert np.ptp(part[:, 0]) < 0.01
        assert np.abs(part[:, 0]).max() == 180
        assert signed_area(part) > 0
    at_home, *_ = written(tmp_path / "b.geojsonl", [placed()])
    whole = signed_area(at_home["geometry"]["coordinates"][0])
    assert sum(map(signed_area, parts)) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pose": None}, "the frame has no position"),
        ({"camera": None}, "the focal length is unknown"),
        ({"pose": dataclasses.replace(DOWN, height_m=None)}, "height above ground is None"),
        ({"pose": dataclasses.replace(DOWN, yaw_deg=None)}, "yaw, pitch and roll"),
        ({"pose": dataclasses.replace(DOWN, pitch_deg=80.0)}, "shows no ground"),
    ],
)
def test_a_frame_without_a_footprint_says_why(tmp_path, changes, reason):
    frame, result = placed()
    frame = dataclasses.replace(frame, **changes)
    features = written(tmp_path / "a.geojsonl", [(frame, result)], regions=True)
    assert features[0]["geometry"] is None
    assert reason in features[0]["properties"]["no_geometry"]
    assert len(features) == 1


def test_a_frame_with_the_horizon_says_so(tmp_path):
    level = dataclasses.replace(DOWN, pitch_deg=-10.0)
    (feature,) = written(tmp_path / "a.geojsonl", [placed(pose=level)])
    assert feature["properties"]["shows_horizon"] is True
    assert feature["geometry"]["type"] == "Polygon"


def test_only_geojson_holds_the_ground(tmp_path):
    with pytest.raises(InputError, match=r"go into a \.geojsonl"):
        open_sink(tmp_path / "a.jsonl", geo=GeoOptions())


def test_the_terrain_is_used_and_closed(tmp_path):
    rasterio = pytest.importorskip("rasterio", reason="rasterio (extra geo) is not installed")
    place = rasterio.Affine(0.0005, 0, 7.99, 0, -0.0005, 47.01)
    profile = {"driver": "GTiff", "height": 40, "width": 40, "count": 1, "dtype": "float32"}
    dem = tmp_path / "dem.tif"
    with rasterio.open(dem, "w", crs="EPSG:4326", transform=place, **profile) as raster:
        raster.write(np.full((1, 40, 40), 450, np.float32))
    path = tmp_path / "a.geojsonl"
    with open_sink(path, geo=GeoOptions(terrain=dem)) as sink:
        sink.write(*placed())
    feature = json.loads(path.read_text())
    assert feature["properties"]["gsd_m"] == pytest.approx(1.0)  # 50 m above the model, not 100
    assert sink._terrain._raster.closed


def test_large_masks_are_features_too():
    size = (360, 640)
    frame = Frame(np.zeros((*size, 3), np.uint8), 0, "a", pose=DOWN, camera=Camera(500.0, size))
    _, result = item(5, size_hw=size)
    view = GroundView(DOWN, frame.camera, size)
    assert frame_feature(frame, result, view, "")["geometry"]["type"] == "Polygon"
    regions = region_features(frame, result, view)
    assert sum(one["properties"]["area_px"] for one in regions) == 360 * 640
