"""The verb ``cclseg match``."""

import json

import cv2
import numpy as np
import pytest
from networks import colour_patches
from parking import CARS, crop_of, parking


@pytest.fixture
def files(tmp_path, monkeypatch):
    """An image of four cars and a crop of one, in the working folder."""
    monkeypatch.chdir(tmp_path)
    image = parking()
    cv2.imwrite("parking.png", image)
    cv2.imwrite("car.png", crop_of(image, CARS[0]))
    return tmp_path


def test_it_marks_the_places_in_a_picture_and_tells_their_figures(cclseg, files):
    done = cclseg("match", "parking.png", "--reference", "car.png", "--json", "places.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 places -> parking_match.jpg  (threshold ")
    assert "  1.000 at (60.0, 60.0), turned 0 degrees, scale 1" in done.stdout
    content = json.loads((files / "places.json").read_text())
    assert (content["features"], content["metric"], content["angles"]) == ("pixels", "ncc", 24)
    assert content["places"][0]["score"] == pytest.approx(1, abs=1e-3)
    assert sorted(content["places"][0]["polygon"]) == [[49, 40], [49, 80], [71, 40], [71, 80]]
    picture, image = (cv2.imread(str(files / name)) for name in (content["output"], "parking.png"))
    assert picture.shape == image.shape
    assert picture[120, 60].mean() < image[110:130, 50:70].mean()  # dimmed where nothing is
    assert not list(files.glob(".*"))


@pytest.mark.parametrize("metric", ["ssd", "sad"])
def test_a_png_is_the_mask(cclseg, files, metric):
    words = ("--metric", metric, "--angles", "8", "--scales", "1,1.1", "--threshold", "0.95")
    done = cclseg("match", "parking.png", "-r", "car.png", *words, "-o", "mask.png")
    assert done.returncode == 0, done.stderr
    mask = cv2.imread(str(files / "mask.png"), cv2.IMREAD_UNCHANGED)
    assert (mask.shape, mask.dtype) == ((220, 280), np.uint8)
    expected = np.zeros_like(mask)
    expected[40:80, 49:71] = 1
    np.testing.assert_array_equal(mask, expected)


def test_json_on_the_standard_output_stands_alone(cclseg, files):
    done = cclseg("match", "parking.png", "-r", "car.png", "--angles", "8", "--json", "-")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["places"]) >= 1


def test_masks_and_transparent_pixels_say_what_of_a_crop_is_the_object(cclseg, files):
    crop = cv2.imread("car.png")
    mask = np.zeros(crop.shape[:2], np.uint8)
    mask[3:37, 3:19] = 1
    crop[mask == 0] = 255
    cv2.imwrite("white.png", crop)
    cv2.imwrite("white_mask.png", mask)
    cv2.imwrite("clear.png", np.dstack([crop, mask * 255]))
    places = []
    for words in (("-r", "white.png", "--mask", "white_mask.png"), ("-r", "clear.png")):
        done = cclseg("match", "parking.png", *words, "--threshold", "0.8", "--json", "-")
        assert done.returncode == 0, done.stderr
        places.append(json.loads(done.stdout)["places"])
    assert len(places[0]) == len(CARS)
    assert places[0] == places[1]


def test_a_network_tells_what_is_like_the_crop(cclseg, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    patches = colour_patches((96, 128), seed=3)
    cv2.imwrite("patches.png", patches)
    green = np.zeros((20, 24, 3), np.uint8) + np.array([60, 190, 60], np.uint8)
    cv2.imwrite("green.png", green)
    words = ("--features", "network", "-m", str(tiny_model), "-o", "mask.png", "--json", "-")
    done = cclseg("match", "patches.png", "-r", "green.png", *words)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["model"] == str(tiny_model)
    assert content["places"][0]["angle_deg"] is None
    found = cv2.imread("mask.png", cv2.IMREAD_UNCHANGED) == 1
    centres = np.zeros((96, 128), np.bool_)
    for row in range(8, 96, 16):
        centres[row, 8::16] = True
    is_green = patches.argmax(axis=2) == 1
    np.testing.assert_array_equal(found[centres], is_green[centres])


def test_a_tiff_of_many_bands_is_searched(cclseg, tmp_path, monkeypatch):
    rasterio = pytest.importorskip("rasterio")
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(0, 4000, (60, 70, 5)).astype(np.uint16)
    for name, pixels in (("image.tif", image), ("crop.tif", image[20:40, 30:55])):
        height, width, bands = pixels.shape
        profile = {"driver": "GTiff", "height": height, "width": width, "count": bands}
        identity = rasterio.Affine(1, 0, 0, 0, 1, 1)
        with rasterio.open(name, "w", dtype="uint16", transform=identity, **profile) as file:
            file.write(pixels.transpose(2, 0, 1))
    words = ("--angles", "4", "--threshold", "0.9", "--json", "-")
    done = cclseg("match", "image.tif", "-r", "crop.tif", *words)
    assert done.returncode == 0, done.stderr
    (place,) = json.loads(done.stdout)["places"]
    assert (place["x"], place["y"]) == (42.5, 30)
    assert cv2.imread("image_match.jpg").shape == (60, 70, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--threshold", "osu"), "'osu'; expected otsu, multi-otsu or a number"),
        (("--threshold", "nan"), "expected otsu, multi-otsu or a number"),
        (("--scales", "1;2"), "expected positive numbers such as 0.9,1,1.1"),
        (("--scales", "0"), "expected positive numbers"),
        (("--angles", "0"), "0 is not in the range"),
        (("-o", "places.geojson"), "expected a .png (mask) or .jpg (picture)"),
        (("-o", "nowhere/mask.png"), "there is no folder"),
        (("--mask", "a.png", "--mask", "b.png"), "2 masks for 1 references"),
        (("-o", "absent.png"), "absent.png would replace what is read"),
        (("-m", "ccl-nano"), "--model is for --features network, not pixels"),
        (("--features", "network", "--metric", "ncc"), "--metric is for --features pixels"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_read(cclseg, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    done = cclseg("match", "absent.png", "-r", "absent.png", *words)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("car.png", "-r", "parking.png"), "parking.png has 280 x 220 pixels, the image only 22"),
        (("parking.png", "-r", "grey.png"), "grey.png has 1 bands, the image 3"),
        (("parking.png", "-r", "flat.png"), "flat.png is of one colour"),
        (("parking.png", "-r", "absent.png"), "cannot read absent.png"),
        (("parking.png", "-r", "car.png", "--mask", "grey.png"), "the mask of car.png is"),
        (("parking.png", "-r", "car.png", "--features", "network", "-m", "ccl-nan"), "ccl-nan"),
    ],
)
def test_files_that_do_not_fit_are_refused_with_advice(cclseg, files, words, message):
    cv2.imwrite("grey.png", np.eye(9, dtype=np.uint8))
    cv2.imwrite("flat.png", np.full((9, 9, 3), 80, np.uint8))
    before = sorted(files.iterdir())
    done = cclseg("match", *words)
    assert done.returncode == 1
    assert message in " ".join(done.stderr.split())
    assert sorted(files.iterdir()) == before
