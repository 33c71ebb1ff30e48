"""Context, adaptive and auto-correlation blocks, against their equations in plain form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cclseg_trainer.models.adaptive import DeformableDepthwise, SelectedDilation, deform_conv2d
from cclseg_trainer.models.attention import (
    CrissCrossAttention,
    DualAttention,
    ExpectationMaximisation,
    InterlacedAttention,
    attend,
)
from cclseg_trainer.models.autocorrelation import AutoCorrelationLevel, rotation_pooled
from cclseg_trainer.models.context import AtrousPyramid, LargeKernel, PyramidPooling, average_grid


def maps(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def made(kind, *args, **kwargs):
    torch.manual_seed(0)
    return kind(*args, **kwargs).double().eval()


def interpolated(x, down, right):
    """One value of a map (H, W) between its pixels, 0 outside."""
    height, width = x.shape
    row, column = int(np.floor(down)), int(np.floor(right))
    value = 0.0
    for i, j in np.ndindex(2, 2):
        if 0 <= row + i < height and 0 <= column + j < width:
            share = (1 - abs(down - row - i)) * (1 - abs(right - column - j))
            value += share * x[row + i, column + j]
    return value


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_deformable_convolution_reads_where_its_taps_have_moved(groups):
    x, weight = maps(1, 4, 3, 5), maps(4, 4 // groups, 3, 3, seed=1)
    offsets, masks = 1.5 * maps(1, 18, 3, 5, seed=2), maps(1, 9, 3, 5, seed=3)
    expected = np.zeros((4, 3, 5))
    per = 4 // groups
    for out, y, column in np.ndindex(4, 3, 5):
        for inner, k in np.ndindex(per, 9):
            down = y + k // 3 - 1 + offsets[0, 2 * k, y, column].item()
            right = column + k % 3 - 1 + offsets[0, 2 * k + 1, y, column].item()
            channel = out // per * per + inner
            seen = interpolated(x[0, channel].numpy(), down, right)
            expected[out, y, column] += (
                weight[out, inner, k // 3, k % 3] * masks[0, k, y, column] * seen
            )
    found = deform_conv2d(x, offsets, masks, weight)[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_taps_of_half_precision_maps_keep_their_places():
    x = maps(1, 2, 5, 300).bfloat16()
    weight = torch.zeros(2, 1, 3, 3, dtype=torch.bfloat16)
    weight[:, :, 1, 1] = 1  # the tap in the middle alone: the map itself comes back
    offsets, masks = x.new_zeros(1, 18, 5, 300), x.new_ones(1, 9, 5, 300)
    found = deform_conv2d(x, offsets, masks, weight)
    torch.testing.assert_close(found, x, rtol=1e-2, atol=1e-3)


def test_gradients_of_the_deformable_convolution_match_finite_ones():
    inputs = (
        maps(1, 2, 3, 4),
        maps(1, 18, 3, 4, seed=1),
        maps(1, 9, 3, 4, seed=2),
        maps(2, 1, 3, 3),
    )
    assert torch.autograd.gradcheck(deform_conv2d, tuple(i.requires_grad_() for i in inputs))


def test_the_deformable_layer_starts_as_a_depthwise_convolution():
    layer = made(DeformableDepthwise, 6)
    x = maps(2, 6, 5, 7)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, padding=1, groups=6))


def test_a_selected_dilation_alone_is_its_convolution():
    layer = made(SelectedDilation, 4)
    nn.init.zeros_(layer.choice.weight)
    layer.choice.bias.data = torch.tensor([0.0, 0.0, 1000.0], dtype=torch.float64)
    x = maps(1, 4, 9, 9)
    weight = layer.branches[2][0].weight
    dilated = layer.branches[2][1](F.conv2d(x, weight, padding=4, dilation=4, groups=4))
    torch.testing.assert_close(layer(x), layer.pointwise(dilated))


@pytest.mark.parametrize(("size", "bins"), [((16, 16), 6), ((2, 3), 6), ((12, 6), 3), ((5, 7), 2)])
def test_a_grid_averages_windows_of_one_size(size, bins):
    x = maps(1, 2, *size)
    found = average_grid(x, bins).numpy()
    counts = [min(bins, s) for s in size]
    strides = [s // c for s, c in zip(size, counts, strict=True)]
    spans = [s - (c - 1) * t for s, c, t in zip(size, counts, strides, strict=True)]
    assert found.shape[2:] == tuple(counts)
    for i, j in np.ndindex(*counts):
        top, left = i * strides[0], j * strides[1]
        window = x[:, :, top : top + spans[0], left : left + spans[1]]
        np.testing.assert_allclose(found[:, :, i, j], window.mean((2, 3)).numpy(), atol=1e-12)


def test_pyramid_pooling_joins_a_map_with_its_grids():
    block = made(PyramidPooling, 8, "relu")
    x = maps(1, 8, 6, 12)
    parts = [x] + [
        F.interpolate(level(F.adaptive_avg_pool2d(x, bins)), (6, 12), mode="bilinear")
        for bins, level in zip((1, 2, 3, 6), block.levels, strict=True)
    ]  # 6 and 12 are multiples of every grid, where adaptive windows have one size, too
    torch.testing.assert_close(block(x), block.project(torch.cat(parts, 1)))


def test_the_atrous_pyramid_sees_at_its_rates():
    block = made(AtrousPyramid, 8, "relu", rates=(2,))
    x = maps(1, 8, 5, 6)
    depthwise, pointwise = block.atrous[0]
    seen = F.conv2d(x, depthwise[0].weight, padding=2, dilation=2, groups=8)
    mean = block.mean(x.mean((2, 3), keepdim=True)).repeat(1, 1, 5, 6)
    parts = [block.same(x), mean, pointwise(depthwise[1](seen))]
    torch.testing.assert_close(block(x), block.project(torch.cat(parts, 1)))


def test_a_large_kernel_is_two_factored_ones():
    block = made(LargeKernel, 4, "relu", kernel=3)
    for path in (block.tall_first, block.wide_first):
        for conv in path:
            nn.init.zeros_(conv.bias)
    x = maps(1, 4, 5, 5)
    dense = [
        torch.einsum(
            "omhw,mihw->oihw", b.weight.expand(-1, -1, 3, 3), a.weight.expand(-1, -1, 3, 3)
        )
        for a, b in (block.tall_first, block.wide_first)
    ]
    expected = F.conv2d(x, sum(dense), padding=1)
    inner = (..., slice(1, -1), slice(1, -1))  # at the border the factors pad one after the other
    torch.testing.assert_close(block(x)[inner], block.project(expected)[inner])


def softmax(x, axis):
    raised = np.exp(x - x.max(axis, keepdims=True))
    return raised / raised.sum(axis, keepdims=True)


def test_dual_attention_is_that_of_places_plus_that_of_channels():
    block = made(DualAttention, 8, "relu")
    x = maps(1, 8, 3, 4)
    with torch.no_grad():
        query, key, value = (m[0].flatten(1).numpy() for m in block.projections(x))
        places = x[0].flatten(1).numpy()
        by_place = value @ softmax(query.T @ key, 1).T
        by_channel = softmax(places @ places.T / 12, 1) @ places
        expected = block.project(torch.from_numpy(by_place + by_channel).reshape(1, 8, 3, 4))
        torch.testing.assert_close(block(x), expected)


def test_bases_are_found_by_three_em_steps():
    block = made(ExpectationMaximisation, 6, "relu", bases=3)
    x = maps(1, 6, 4, 5)
    with torch.no_grad():
        places = block.enter(x)[0].flatten(1).numpy()
        bases = block.bases[0].numpy()
        bases = bases / np.linalg.norm(bases, axis=0)
        for _ in range(3):
            shares = softmax(places.T @ bases, 1)
            bases = places @ (shares / (shares.sum(0) + 1e-6))
            bases = bases / np.linalg.norm(bases, axis=0)
        rebuilt = torch.from_numpy(np.maximum(bases @ shares.T, 0)).reshape(1, 6, 4, 5)
        torch.testing.assert_close(block(x), block.project(rebuilt))


def test_criss_cross_attends_to_row_and_column():
    block = made(CrissCrossAttention, 8, "relu")
    x = maps(1, 8, 3, 4)
    with torch.no_grad():
        query, key, value = (m[0].numpy() for m in block.projections(x))
        expected = np.zeros((8, 3, 4))
        for y, c in np.ndindex(3, 4):
            keys = np.concatenate([key[:, y], key[:, :, c]], 1)
            values = np.concatenate([value[:, y], value[:, :, c]], 1)
            expected[:, y, c] = values @ softmax(query[:, y, c] @ keys, 0)
        np.testing.assert_allclose(block.across(x)[0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("is_long", [False, True])
def test_interlaced_attention_stays_in_its_sets(is_long):
    block = made(InterlacedAttention, 8, "relu")
    parts = block.short(maps(1, 8, 8, 12))
    with torch.no_grad():
        found = block.within(parts, is_long=is_long)
        sets = (
            [(..., slice(i, None, 4), slice(j, None, 4)) for i, j in np.ndindex(4, 4)]
            if is_long
            else [
                (..., slice(4 * i, 4 * i + 4), slice(4 * j, 4 * j + 4)) for i, j in np.ndindex(2, 3)
            ]
        )
        for members in sets:
            cut = [m[members] for m in parts]
            expected = attend(*(m.flatten(2) for m in cut)).reshape(cut[2].shape)
            torch.testing.assert_close(found[members], expected)


def test_interlaced_attention_takes_sizes_that_are_no_multiple_of_a_block():
    assert made(InterlacedAttention, 8, "relu")(maps(1, 8, 3, 5)).shape == (1, 8, 3, 5)


def level(mode, *, is_dynamic=False):
    block = made(AutoCorrelationLevel, 8, (1, 2), mode=mode, is_dynamic=is_dynamic, act="relu")
    nn.init.normal_(block.lags)
    return block


def cosines(x, dilation, groups=4):
    """R of the place with each of its 8 neighbours and itself, (1, G, 9, H, W)."""
    unit = F.normalize(x.reshape(1, groups, -1, *x.shape[2:]), dim=2)
    height, width = x.shape[2:]
    padded = F.pad(unit, [dilation] * 4)
    shifted = [
        padded[..., dilation * i : dilation * i + height, dilation * j : dilation * j + width]
        for i, j in np.ndindex(3, 3)
    ]
    return torch.stack([(unit * s).sum(2) for s in shifted], 2)


@pytest.mark.parametrize("dilation", [1, 2])
def test_autocorrelation_is_the_weighted_cosine_with_the_surroundings(dilation):
    block = level("descriptor")
    x = maps(1, 8, 5, 6)
    index = block.dilations.index(dilation)
    torch.testing.assert_close(
        block.correlation(x, index), block.lags[index][..., None, None] * cosines(x, dilation)
    )
    others = [k for k in range(9) if k != 4]
    expected = block.correlation(x, index)[:, :, others].flatten(1, 2)
    torch.testing.assert_close(block.told(x, index), expected)


def test_dynamic_weights_start_as_static_ones_and_follow_the_image():
    block = level("descriptor", is_dynamic=True)
    x = maps(2, 8, 5, 6)
    static = block.lags[0][..., None, None] * torch.cat([cosines(one[None], 1) for one in x])
    torch.testing.assert_close(block.correlation(x, 0), static)
    nn.init.normal_(block.change.last.weight)
    first, second = block.correlation(x, 0) / static
    assert not torch.allclose(first[..., 2, 2], second[..., 2, 2])


def test_pooled_rings_of_a_turned_map_are_the_turned_rings():
    x = maps(1, 8, 5, 5)
    upright, turned = (rotation_pooled(cosines(m, 1)) for m in (x, torch.rot90(x, 1, (2, 3))))
    torch.testing.assert_close(turned, torch.rot90(upright, 1, (3, 4)))


@pytest.mark.parametrize("mode", ["attention", "biased-attention"])
def test_autocorrelation_steers_attention(mode):
    block = level(mode)
    x = maps(1, 8, 5, 6)
    with torch.no_grad():
        scores = (
            block.sharpness[..., None, None] * block.correlation(x, 1)
            + block.lag_bias[..., None, None]
        )
        if mode == "biased-attention":
            query, key = (m.reshape(1, 4, 8, 5, 6) for m in (block.query(x), block.key(x)))
            padded = F.pad(key, [2] * 4)
            scores = scores + torch.stack(
                [
                    (query * padded[..., 2 * i : 2 * i + 5, 2 * j : 2 * j + 6]).mean(2)
                    for i, j in np.ndindex(3, 3)
                ],
                2,
            )
        values = F.pad(block.value(x).reshape(1, 4, 8, 5, 6), [2] * 4)
        expected = sum(
            scores.softmax(2)[:, :, 3 * i + j, None]
            * values[..., 2 * i : 2 * i + 5, 2 * j : 2 * j + 6]
            for i, j in np.ndindex(3, 3)
        )
        torch.testing.assert_close(block.told(x, 1), expected.reshape(1, 32, 5, 6))
