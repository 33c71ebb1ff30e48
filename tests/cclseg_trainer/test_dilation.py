"""Encoders whose later strides are dilations: the weights and the answers stay."""

from __future__ import annotations

import pytest
import torch
from network_contract import randomised

from cclseg.errors import InputError
from cclseg_trainer.models.encoders import EfficientNetLite0, build_encoder


@pytest.mark.parametrize(("output_stride", "replaced"), [(16, 1), (8, 2)])
def test_a_dilated_encoder_computes_what_the_strided_one_does_and_more(output_stride, replaced):
    strided = randomised("ccl-lite0").encoder.eval()
    dilated = EfficientNetLite0(output_stride=output_stride).eval()
    dilated.load_state_dict(strided.state_dict())
    images = torch.randn(1, 3, 96, 128)
    with torch.inference_mode():
        expected, found = strided(images), dilated(images)
    assert [64 * 2 // m.shape[-1] for m in found] == [
        min(stride, output_stride) for stride in (2, 4, 8, 16, 32)
    ]
    for depth, (large, small) in enumerate(zip(found, expected, strict=True)):
        for _ in range(max(depth - 4 + replaced, 0)):
            large = large[..., 1::2, 1::2]  # noqa: PLW2901 - one halving after the other
        # float32 sums in another order, through 16 blocks
        torch.testing.assert_close(large, small, rtol=0, atol=1e-5 * float(small.abs().max()))


@pytest.mark.parametrize(("name", "output_stride"), [("resnet18", 8), ("lite0", 12)])
def test_strides_that_an_encoder_lacks_are_refused(name, output_stride):
    with pytest.raises(InputError, match=f"{name} has no output_stride {output_stride}"):
        build_encoder(name, 3, output_stride=output_stride)
