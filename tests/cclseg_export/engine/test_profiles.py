"""The shapes that an engine is built for."""

from __future__ import annotations

import pytest
from networks import brightest_band_spec

from cclseg.errors import InputError
from cclseg.onnx_file import TensorInfo
from cclseg_export.engine.options import BuildOptions
from cclseg_export.engine.profiles import plan_profile

SPEC = brightest_band_spec()


def image(*shape, name="images"):
    return TensorInfo(name, "float32", shape)


def plan(info, spec=SPEC, **options):
    return plan_profile([info], spec, BuildOptions(**options))[info.name]


def test_a_fixed_model_has_one_shape():
    assert plan(image(2, 3, 32, 32)) == ((2, 3, 32, 32),) * 3


def test_an_open_batch_is_one_to_eight_tiles():
    assert plan(image(None, 3, 32, 32)) == ((1, 3, 32, 32), (1, 3, 32, 32), (8, 3, 32, 32))


def test_open_sizes_are_those_of_the_spec():
    assert plan(image(1, None, None, None)) == ((1, 3, 32, 32),) * 3


def test_what_is_asked_for_is_taken():
    asked = {"smallest": {"": (1, 3, 64, 64)}, "largest": {"images": (4, 3, 512, 512)}}
    shapes = plan(image(None, 3, None, None), usual={"": (2, 3, 256, 128)}, **asked)
    assert shapes == ((1, 3, 64, 64), (2, 3, 256, 128), (4, 3, 512, 512))


def test_one_shape_alone_gives_the_size_of_all():
    low, usual, high = plan(image(None, 3, None, None), spec=None, usual={"": (2, 3, 64, 96)})
    assert (low, usual, high) == ((1, 3, 64, 96), (2, 3, 64, 96), (8, 3, 64, 96))
    assert plan(image(None, 3, None, None), spec=None, largest={"": (4, 3, 64, 96)}) == (
        (1, 3, 64, 96), (1, 3, 64, 96), (4, 3, 64, 96),
    )  # fmt: skip


def test_more_usual_tiles_than_eight_are_the_most():
    assert plan(image(None, 3, 32, 32), usual={"": (16, 3, 32, 32)})[2] == (16, 3, 32, 32)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"usual": {"image": (1, 3, 32, 32)}}, "no input 'image'; did you mean 'images'"),
     ({"usual": {"": (1, 4, 32, 32)}}, r"got the shape 1x4x32x32; the model takes images"),
     ({"usual": {"": (1, 3, 32)}}, "got the shape 1x3x32"),
     ({"smallest": {"": (4, 3, 32, 32)}, "largest": {"": (2, 3, 32, 32)}},
      "axis 0 of 'images' are 4, 4 and 2; expected smallest <= usual <= largest"),
     ({"usual": {"": (9, 3, 32, 32)}, "largest": {"": (2, 3, 32, 32)}}, "are 1, 9 and 2")],
)  # fmt: skip
def test_shapes_that_the_model_does_not_take_are_refused(options, reason):
    with pytest.raises(InputError, match=reason):
        plan(image(None, 3, 32, 32), **options)


def test_a_size_that_nothing_gives_is_asked_for():
    with pytest.raises(InputError, match=r"leaves axis 2 .*give it: --opt images:1x3x512x512"):
        plan(image(None, 3, None, None), spec=None)


def test_a_shape_without_a_name_needs_a_single_input():
    two = [image(1, 3, 8, 8), image(1, 2, name="extra")]
    options = BuildOptions(usual={"": (1, 3, 8, 8)})
    with pytest.raises(InputError, match="inputs images, extra; say which"):
        plan_profile(two, SPEC, options)
    assert plan_profile(two, SPEC, BuildOptions())["extra"] == ((1, 2),) * 3
