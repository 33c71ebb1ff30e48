"""Image files: what is whole is read as it is, what is damaged is an error."""

import cv2
import numpy as np
import pytest
from networks import colour_patches

from cclseg import image_files
from cclseg.errors import InputError, SinkError
from cclseg.image_files import encode_image, read_image, read_mask, write_image


@pytest.mark.parametrize(
    ("suffix", "bands"), [(".png", 1), (".png", 3), (".png", 4), (".bmp", 1), (".bmp", 3)]
)
def test_exact_formats_give_back_what_was_written(tmp_path, suffix, bands):
    pixels = np.random.default_rng(0).integers(0, 256, (13, 7, bands), np.uint8)
    write_image(tmp_path / f"a{suffix}", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), pixels)


def test_16_bits_stay_16_bits(tmp_path):
    pixels = np.arange(60_000, 60_012, dtype=np.uint16).reshape(3, 4)
    write_image(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_file_cut_off_anywhere_is_an_error(tmp_path, suffix):
    whole = encode_image(colour_patches((48, 64)), suffix)
    path = tmp_path / f"a{suffix}"
    for share in np.linspace(0, 0.99, 34):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=r"cut off|empty|not an image"):
            read_image(path)


def test_a_thumbnail_does_not_hide_that_the_photo_is_cut_off(tmp_path):
    thumbnail = encode_image(colour_patches((8, 8)), ".jpg")
    photo = encode_image(colour_patches((64, 64)), ".jpg")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = tmp_path / "photo.jpg"
    path.write_bytes(photo[:2] + segment + photo[2:])
    assert read_image(path).shape == (64, 64, 3)
    path.write_bytes((photo[:2] + segment + photo[2:])[:-200])
    with pytest.raises(InputError, match="cut off"):
        read_image(path)


def test_bytes_behind_the_end_of_a_photo_are_harmless(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode_image(colour_patches((32, 32)), ".jpg") + b"vendor data")
    assert read_image(path).shape == (32, 32, 3)


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\nIEND"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_what_is_no_image_is_named(tmp_path, content, suffix):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="broken"):
        read_image(path)


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_image(tmp_path / "absent.png")


def test_colour_images_are_no_masks(tmp_path):
    write_image(tmp_path / "a.png", colour_patches((8, 8)))
    with pytest.raises(InputError, match="colour masks must be converted first"):
        read_mask(tmp_path / "a.png")


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"'\.xyz'"):
        write_image(tmp_path / "a.xyz", colour_patches((8, 8)))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_does_not_exist_is_a_sink_error(tmp_path):
    with pytest.raises(SinkError, match="cannot write"):
        write_image(tmp_path / "absent" / "a.png", colour_patches((8, 8)))


class TestTiff:
    @pytest.fixture
    def write_tiff(self, tmp_path):
        rasterio = pytest.importorskip("rasterio")

        def write(bands):
            path = tmp_path / "scene.tif"
            profile = {
                "driver": "GTiff", "dtype": bands.dtype, "count": len(bands),
                "height": bands.shape[1], "width": bands.shape[2],
                "transform": rasterio.Affine(0.5, 0, 0, 0, -0.5, 0),
            }  # fmt: skip
            with rasterio.open(path, "w", **profile) as raster:
                raster.write(bands)
            return path

        return write

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_bands_keep_their_order_and_type(self, write_tiff, dtype):
        bands = np.random.default_rng(0).integers(0, 200, (5, 6, 7)).astype(dtype)
        pixels = read_image(write_tiff(bands))
        assert pixels.dtype == dtype
        np.testing.assert_array_equal(pixels, bands.transpose(1, 2, 0))

    def test_a_scene_too_large_for_memory_is_refused(self, write_tiff, monkeypatch):
        monkeypatch.setattr(image_files, "MAX_IMAGE_PIXELS", 40)
        with pytest.raises(InputError, match="7 x 6 pixels"):
            read_image(write_tiff(np.zeros((1, 6, 7), np.uint8)))

    def test_a_tiff_cut_off_is_an_error(self, write_tiff):
        path = write_tiff(np.random.default_rng(0).integers(0, 200, (3, 64, 64)).astype(np.uint8))
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(InputError, match=r"scene\.tif"):
            read_image(path)


@pytest.mark.real_data
def test_real_photos_and_masks(real_data):
    assert read_image(real_data / "video" / "DJI_0032_original_4000x2250.jpg").shape == (
        2250,
        4000,
        3,
    )
    mask = read_mask(real_data / "dubai" / "masks" / "tile2_part005.png")
    assert set(np.unique(mask)) <= {0, 1, 2, 3, 4, 255}


def test_opencv_reads_what_we_encode():
    pixels = colour_patches((16, 16))
    encoded = np.frombuffer(encode_image(pixels, ".png"), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(encoded, cv2.IMREAD_COLOR), pixels)
