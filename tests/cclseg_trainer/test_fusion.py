"""Correlation in the decoder, against the equations written out in numpy and loops."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cclseg.correlation import local_correlation as definition
from cclseg_trainer.model_config import choices_of
from cclseg_trainer.models import build_model
from cclseg_trainer.models.fusion import CCLFusion, ChannelCorrelation
from cclseg_trainer.models.gather import gathered
from cclseg_trainer.models.upsample import CorrelationUpsample

NANO = build_model("ccl-nano").config


def maps(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def softmax(x, axis):
    raised = np.exp(x - x.max(axis, keepdims=True))
    return raised / raised.sum(axis, keepdims=True)


def gathered_by_loops(weights, values, *, radius, dilation=1):
    batch, groups, _, height, width = weights.shape
    channels = values.shape[1]
    out = np.zeros_like(values)
    for n, c, y, x in np.ndindex(batch, channels, height, width):
        for lag, (down, right) in enumerate(np.ndindex(2 * radius + 1, 2 * radius + 1)):
            row, column = y + (down - radius) * dilation, x + (right - radius) * dilation
            if 0 <= row < height and 0 <= column < width:
                group = c * groups // channels
                out[n, c, y, x] += weights[n, group, lag, y, x] * values[n, c, row, column]
    return out


@pytest.mark.parametrize(("radius", "dilation"), [(0, 1), (1, 1), (1, 3), (2, 1)])
def test_gather_sums_what_the_weights_say(radius, dilation):
    weights, values = maps(2, 2, (2 * radius + 1) ** 2, 5, 7), maps(2, 4, 5, 7, seed=1)
    found = gathered(weights, values, radius=radius, dilation=dilation)
    expected = gathered_by_loops(weights.numpy(), values.numpy(), radius=radius, dilation=dilation)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def fusion_of(kind, *, radius=1, **changes):
    torch.manual_seed(0)
    config = dataclasses.replace(NANO, fusion=kind, groups=2, group_channels=3, **changes)
    module = CCLFusion(config, 8, 5, radius=radius, stride=16).double().eval()
    for name, parameter in module.named_parameters():
        if name in ("gamma", "lag_bias"):
            torch.nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize("kind", ["plain", "gate", "gather", "full"])
@pytest.mark.parametrize(("metric", "centred"), [("ncc", False), ("ncc", True), ("ssd", False)])
def test_fusion_follows_its_equations(kind, metric, centred):
    module = fusion_of(kind, metric=metric, centred=centred)
    deep, shallow = maps(2, 8, 4, 6), maps(2, 5, 4, 6, seed=1)
    with torch.no_grad():
        value = module.value(shallow)
        added = torch.zeros_like(value)
        if kind != "plain":
            query, key = (
                m.numpy().reshape(2, 2, 3, 4, 6) for m in (module.query(deep), module.key(shallow))
            )
            if centred:
                query, key = (m - m.mean(2, keepdims=True) for m in (query, key))
            similarity = definition(
                query.reshape(2, 6, 4, 6), key.reshape(2, 6, 4, 6),
                radius=1, groups=2, normalize=metric == "ncc", metric=metric,
            )  # fmt: skip
            similarity *= 1 if metric == "ncc" else -1
            added = value
        if kind in ("gather", "full"):
            scores = module.sharpness.numpy()[..., None, None] * similarity.reshape(2, 2, 9, 4, 6)
            weights = softmax(scores + module.lag_bias.numpy()[..., None, None], 2)
            added = torch.from_numpy(gathered_by_loops(weights, value.numpy(), radius=1))
        if kind == "full":
            added = module.channel_correlation(deep, added)
        if kind in ("gate", "full"):
            added = torch.sigmoid(module.gate(torch.from_numpy(similarity))) * added
        if kind != "plain":
            value = value + module.gamma * added
        torch.testing.assert_close(module(deep, shallow), module.merge(deep + value))


def test_channels_correlate_as_pearson_does():
    torch.manual_seed(0)
    module = ChannelCorrelation(8, stride=16).double()
    deep, y = maps(1, 8, 4, 6), maps(1, 8, 4, 6, seed=1)
    with torch.no_grad():
        pooled = [
            m.numpy().reshape(8, 2, 2, 3, 2).mean((2, 4)).reshape(8, 6) for m in (deep[0], y[0])
        ]
        correlation = np.corrcoef(*pooled)[:8, 8:]
        rows = y[0].numpy().reshape(8, 24)
        mixed = rows + 0.5 * softmax(module.sharpness.numpy() * correlation, 1) @ rows
        told = np.concatenate([deep[0].numpy().mean((1, 2)), correlation.mean(1)])
        weights = torch.sigmoid(module.weigh(torch.from_numpy(told)[None, :, None, None]))
        expected = weights * torch.from_numpy(mixed).reshape(1, 8, 4, 6)
        torch.testing.assert_close(module(deep, y), expected)


@pytest.mark.parametrize("change", [
    *({"fusion": kind} for kind in choices_of("fusion") if kind != "plain"),
    *({"ctx": kind} for kind in choices_of("ctx") if kind != "none"),
    *({"adaptive": kind} for kind in choices_of("adaptive") if kind != "none"),
    *({"auto": kind} for kind in choices_of("auto") if kind != "none"),
], ids=str)  # fmt: skip
def test_a_network_starts_as_the_plain_one(change):
    torch.manual_seed(0)
    changed = build_model("ccl-nano", **({"fusion": "plain"} | change)).eval()
    plain = build_model("ccl-nano", fusion="plain").eval()
    weights = changed.state_dict()
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(changed(x), plain(x), rtol=0, atol=0)


@pytest.mark.parametrize("groups", [1, 2])
def test_upsampling_gathers_from_the_coarse_places_that_fit(groups):
    torch.manual_seed(0)
    module = (
        CorrelationUpsample(6, 4, 5, groups=groups, group_channels=3, act="relu").double().eval()
    )
    torch.nn.init.normal_(module.lag_bias)
    deep, shallow = maps(1, 6, 3, 4), maps(1, 5, 6, 8, seed=1)
    with torch.no_grad():
        values = module.value(deep)[0].numpy().reshape(groups, -1, 3, 4)
        queries = F.normalize(module.query(shallow).reshape(groups, 3, 6, 8), dim=1).numpy()
        keys = F.normalize(module.key(deep).reshape(groups, 3, 3, 4), dim=1).numpy()
        expected = np.zeros((groups, 4 // groups, 6, 8))
        for g, y, x in np.ndindex(groups, 6, 8):
            scores, seen = np.zeros(9), np.zeros((9, 4 // groups))
            for lag, (down, right) in enumerate(np.ndindex(3, 3)):
                row, column = y // 2 + down - 1, x // 2 + right - 1
                if 0 <= row < 3 and 0 <= column < 4:
                    scores[lag] = queries[g, :, y, x] @ keys[g, :, row, column]
                    seen[lag] = values[g, :, row, column]
            scores = module.sharpness[g].numpy() * scores + module.lag_bias[g].numpy()
            expected[g, :, y, x] = softmax(scores, 0) @ seen
        found = module(deep, shallow)[0].numpy()
    np.testing.assert_allclose(found, expected.reshape(4, 6, 8), atol=1e-12)
