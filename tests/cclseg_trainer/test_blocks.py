"""Blocks: the forms used at inference compute what the training forms compute."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cclseg_trainer.models.blocks import DeconvUpsample, MultiScaleDepthwise


def _randomise_norms(module: nn.Module) -> None:
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.running_mean.normal_(0, 0.3)
            child.running_var.uniform_(0.5, 2)
            nn.init.normal_(child.weight, 1, 0.2)
            nn.init.normal_(child.bias, 0, 0.2)


@pytest.mark.parametrize("kernels", [(3,), (3, 5), (3, 5, 7)])
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (32, 32)])
def test_merged_depthwise_equals_the_sum_of_its_branches(kernels, size):
    torch.manual_seed(0)
    block = MultiScaleDepthwise(5, kernels).double()
    _randomise_norms(block)
    block.eval()
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    merged = block.merged().double()
    # merged() builds float32 weights; their rounding is the tolerance
    torch.testing.assert_close(merged(x), block(x), rtol=0, atol=5e-6)


def test_upsampling_equals_a_transposed_convolution():
    torch.manual_seed(0)
    deconvolution = nn.ConvTranspose2d(6, 4, 2, 2, bias=False).double()
    block = DeconvUpsample(6, 4, "relu6").double().eval()
    block.load_deconvolution(deconvolution.weight)
    block.conv[1] = nn.Identity()  # only the convolution is compared
    block.conv[2] = nn.Identity()
    x = torch.randn(2, 6, 5, 9, dtype=torch.float64)
    torch.testing.assert_close(block(x), deconvolution(x), rtol=0, atol=1e-12)
