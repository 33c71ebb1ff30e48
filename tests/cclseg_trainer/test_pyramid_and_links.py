"""The Laplacian pyramid of scores and the links between blocks: what they compute at first."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cclseg.errors import InputError
from cclseg_trainer.models import build_model
from cclseg_trainer.models.encoders import HarmonicBlocks, LinkedBlock
from cclseg_trainer.models.laplacian import LaplacianPyramid


def maps(*channels):
    """Maps of random values, each twice the size of the one before."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, width, 3 * 2**level, 5 * 2**level, generator=generator)
        for level, width in enumerate(channels)
    ]


def test_a_pyramid_begins_as_its_finest_scores():
    finest = nn.Conv2d(4, 3, 1)
    found = maps(6, 5, 4)
    torch.testing.assert_close(LaplacianPyramid((6, 5, 4), 3, finest)(found), finest(found[-1]))


def test_finer_scores_count_only_where_the_coarser_ones_leave_doubt():
    pyramid = LaplacianPyramid((2, 1), 2, nn.Conv2d(1, 2, 1))
    with torch.no_grad():
        pyramid.coarser[0].weight.copy_(torch.eye(2)[..., None, None])
    certain = torch.zeros(1, 2, 2, 4)
    certain[:, 0, :, :2] = 40.0  # class 0 on the left, undecided on the right
    fine = torch.randn(1, 1, 4, 8)
    with torch.no_grad():
        scores, alone = pyramid([certain, fine]), pyramid.finest(fine)
    torch.testing.assert_close(
        scores[..., :2], torch.tensor([40.0, 0.0])[None, :, None, None].expand(1, 2, 4, 2)
    )
    torch.testing.assert_close(scores[..., 6:], alone[..., 6:])


def test_prior_and_temperature_act_on_the_scores_of_the_whole_pyramid():
    model = build_model("ccl-nano", num_classes=3, head="laplacian").eval()
    nn.init.normal_(model.pyramid.coarser[0].weight)
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = model(image)
        model.head[-1].weight.div_(2)
        model.head[-1].bias.sub_(torch.tensor([0.5, 0.0, 0.0]))
        after = model(image)
    expected = before / 2 - torch.tensor([0.5, 0.0, 0.0])[:, None, None]
    torch.testing.assert_close(after, expected)


def test_linked_blocks_begin_as_a_chain():
    torch.manual_seed(0)
    blocks = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(5)]
    (x,) = maps(4)
    torch.testing.assert_close(HarmonicBlocks(4, blocks).eval()(x), nn.Sequential(*blocks)(x))


def test_links_leave_out_powers_of_two():
    linked = HarmonicBlocks(2, [nn.Identity() for _ in range(8)]).blocks
    widths = [b.link[0].in_channels if isinstance(b, LinkedBlock) else 0 for b in linked]
    assert widths == [0, 2, 0, 4, 0, 2, 0, 6]


def test_a_linked_block_sees_the_earlier_map():
    (x,) = maps(2)
    seen = HarmonicBlocks(2, [nn.ReLU(), nn.Identity()]).eval()
    linked = seen.blocks[1]
    with torch.no_grad():
        linked.gamma.fill_(1)
        linked.link[0].weight.copy_(torch.eye(2)[..., None, None])
    torch.testing.assert_close(seen(x), x.relu() + linked.link[1](x))


def test_a_ready_made_encoder_takes_no_links():
    with pytest.raises(InputError, match="'harmonic', but the blocks of the encoder 'lite0'"):
        build_model("ccl-lite0", num_classes=3, dense="harmonic")
