"""Plans cover frames, and blending neither shifts nor scales what tiles say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cclseg.errors import InputError
from cclseg.tiling import Blender, plan_tiles

pytestmark = pytest.mark.usefixtures("form")


@st.composite
def plans(draw):
    stride = draw(st.sampled_from([1, 2, 4, 8]))
    tile_hw = tuple(stride * draw(st.integers(1, 16)) for _ in range(2))
    frame_hw = tuple(draw(st.integers(1, 300)) for _ in range(2))
    overlap = draw(st.floats(0, 0.9))
    return plan_tiles(frame_hw, tile_hw, overlap=overlap, stride=stride), overlap


@settings(deadline=None)
@given(plans())
def test_tiles_cover_the_frame_and_stay_within_it(drawn):
    plan, _ = drawn
    covered = np.zeros(plan.frame_hw, bool)
    for top, left in plan.corners:
        covered[top : top + plan.tile_hw[0], left : left + plan.tile_hw[1]] = True
        assert top % plan.stride == left % plan.stride == 0
        for start, tile, length in zip((top, left), plan.tile_hw, plan.frame_hw, strict=True):
            assert start == 0 or start + tile < length + plan.stride
    assert covered.all()


@settings(deadline=None)
@given(plans())
def test_neighbours_share_at_least_the_overlap(drawn):
    plan, overlap = drawn
    for starts, tile in ((plan.tops, plan.tile_hw[0]), (plan.lefts, plan.tile_hw[1])):
        steps = np.diff(starts)
        assert (steps > 0).all()
        assert (steps <= max(plan.stride, tile * (1 - overlap))).all()
        assert np.ptp(steps) <= plan.stride if len(steps) else True


@settings(deadline=None)
@given(plans())
def test_weights_are_positive_and_add_up_to_one(drawn):
    plan, _ = drawn
    pairs = ((plan.tops, plan.row_weights), (plan.lefts, plan.column_weights))
    for axis, (starts, weights) in enumerate(pairs):
        total = np.zeros(plan.canvas_hw[axis])
        for start, weight in zip(starts, weights, strict=True):
            assert (weight > 0).all()
            total[start // plan.stride : start // plan.stride + len(weight)] += weight
        np.testing.assert_allclose(total, 1, atol=1e-6)


@settings(deadline=None)
@given(plans(), st.integers(0, 9))
def test_tiles_cut_from_one_map_blend_back_to_it(drawn, seed):
    plan, _ = drawn
    whole = np.random.default_rng(seed).normal(size=(2, *plan.canvas_hw)).astype(np.float32)
    blender = Blender(plan, num_classes=2)
    height, width = (length // plan.stride for length in plan.tile_hw)
    for index, (top, left) in enumerate(plan.corners):
        y, x = top // plan.stride, left // plan.stride
        blender.add(index, whole[:, y : y + height, x : x + width])
    np.testing.assert_allclose(blender.canvas, whole, atol=1e-5)


def test_blend_of_constant_tiles_is_constant():
    plan = plan_tiles((720, 1280), (512, 512), overlap=0.25, stride=4)
    blender = Blender(plan, num_classes=3)
    for index in range(len(plan.corners)):
        blender.add(index, np.full((3, 128, 128), 7.5, np.float32))
    np.testing.assert_allclose(blender.canvas, 7.5, rtol=1e-6)


def test_a_frame_of_one_tile_passes_unchanged():
    plan = plan_tiles((512, 512), (512, 512), overlap=0.25, stride=4)
    logits = np.random.default_rng(0).normal(size=(5, 128, 128)).astype(np.float32)
    blender = Blender(plan, num_classes=5)
    blender.add(0, logits)
    np.testing.assert_array_equal(blender.canvas, logits)


def test_between_two_tiles_weights_change_like_a_cosine():
    plan = plan_tiles((64, 96), (64, 64), overlap=0.5, stride=1)
    assert plan.lefts == (0, 32)
    shared = (np.arange(32) + 0.5) / 32
    np.testing.assert_allclose(
        plan.column_weights[1][:32], np.sin(np.pi / 2 * shared) ** 2, atol=1e-6
    )
    np.testing.assert_array_equal(plan.column_weights[1][32:], 1)


def test_a_video_frame_takes_six_tiles_of_the_default_model():
    plan = plan_tiles((720, 1280), (512, 512), overlap=0.25, stride=4)
    assert plan.tops == (0, 208)
    assert plan.lefts == (0, 384, 768)
    assert plan.canvas_hw == (180, 320)


def test_an_odd_frame_is_covered_up_to_the_next_multiple_of_the_stride():
    plan = plan_tiles((1125, 2001), (512, 512), overlap=0.25, stride=4)
    assert plan.canvas_hw == (282, 501)


@pytest.mark.parametrize(
    ("frame_hw", "tile_hw", "overlap", "stride"),
    [
        ((0, 5), (8, 8), 0, 4),
        ((5, 5), (8, 6), 0, 4),
        ((5, 5), (8, 8), 1.0, 4),
        ((5, 5), (8, 8), -0.1, 4),
    ],
)
def test_impossible_plans_are_refused(frame_hw, tile_hw, overlap, stride):
    with pytest.raises(InputError):
        plan_tiles(frame_hw, tile_hw, overlap=overlap, stride=stride)
