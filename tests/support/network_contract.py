"""What every trainable network must do; a new variant inherits these tests."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from cclseg.spec import ModelSpec
from cclseg_export.to_onnx import to_onnx
from cclseg_trainer.checkpoint import Checkpoint, load_checkpoint
from cclseg_trainer.config import TrainConfig
from cclseg_trainer.models import NetworkOutput, build_model
from cclseg_trainer.models.blocks import MultiScaleDepthwise, merged_for_inference

CLASS_NAMES = ("a", "b", "c", "d")


def randomised(variant, *, seed=0, **changes):
    """Returns a network whose norms are not trivial and whose gates are open."""
    torch.manual_seed(seed)
    model = build_model(variant, **({"num_classes": len(CLASS_NAMES)} | changes))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias, 0, 0.1)
        if hasattr(module, "gamma"):
            nn.init.normal_(module.gamma)
    return model


def checkpoint_of(model, **spec):
    """Returns a checkpoint of a network, as a run of one step would leave it."""
    config = model.config
    bands = tuple(f"band{i}" for i in range(config.in_bands))
    fields = {
        "name": config.name,
        "class_names": CLASS_NAMES[: config.num_classes],
        "bands": bands,
        "mean": (127.0,) * len(bands),
        "std": (128.0,) * len(bands),
        "input_hw": (64, 96),
        "output_stride": config.output_stride,
    }
    return Checkpoint(
        config, TrainConfig(), ModelSpec(**(fields | spec)), model.state_dict(), 1, {}
    )


def sum_of_squares(output):
    """Returns a loss that every head has a part in."""
    parts = (output.logits, *output.edge_logits, output.coarse_logits)
    return sum(part.square().mean() for part in parts)


class NetworkContract:
    """For one variant; ``stride`` is that of its logits, the others those of training heads."""

    variant: str
    stride: int
    coarse_stride = 16
    edge_strides = (4, 8, 16)

    @pytest.fixture
    def model(self):
        """The network in eval mode."""
        return randomised(self.variant).eval()

    @pytest.mark.parametrize("bands", [1, 3, 6])
    def test_logits_have_the_size_that_the_spec_says(self, bands):
        model = build_model(self.variant, num_classes=7, in_bands=bands).eval()
        with torch.inference_mode():
            logits = model(torch.zeros(2, bands, 64, 96))
        assert model.config.output_stride == self.stride
        assert logits.shape == (2, 7, 64 // self.stride, 96 // self.stride)

    def test_training_heads_appear_in_training_only(self):
        levels = len(self.edge_strides)
        model = build_model(self.variant, num_classes=3, edge_levels=levels).train()
        output = model(torch.zeros(2, 3, 64, 64))
        assert isinstance(output, NetworkOutput)
        assert output.logits.shape == (2, 3, 64 // self.stride, 64 // self.stride)
        sizes = [64 // stride for stride in self.edge_strides]
        assert [level.shape for level in output.edge_logits] == [(2, 1, n, n) for n in sizes]
        coarse = 64 // self.coarse_stride
        assert output.coarse_logits.shape == (2, 3, coarse, coarse)
        assert isinstance(model.eval()(torch.zeros(1, 3, 64, 64)), torch.Tensor)

    def test_every_parameter_gets_a_gradient(self):
        # Gates are open (at their start value 0 they pass no gradient), and a network of zero
        # input would leave first layers without one.
        model = randomised(self.variant, edge_levels=len(self.edge_strides)).train()
        output = model(torch.randn(2, 3, 64, 64))
        sum_of_squares(output).backward()
        without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert without == []

    def test_the_merged_form_computes_the_same_logits(self, model):
        merged = merged_for_inference(model)
        x = torch.randn(1, 3, 64, 96)
        with torch.inference_mode():
            expected, found = model(x), merged(x)
        unmerged = (nn.BatchNorm2d, MultiScaleDepthwise)
        assert not any(isinstance(module, unmerged) for module in merged.modules())
        # float32 sums in another order: a few units of the last place of the largest logit
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))

    def test_a_checkpoint_rebuilds_it(self, model, tmp_path):
        checkpoint_of(model).save(tmp_path / "best.pt")
        read = load_checkpoint(tmp_path / "best.pt")
        assert read.model_config == model.config
        x = torch.randn(1, 3, 64, 64)
        with torch.inference_mode():
            torch.testing.assert_close(read.build()(x), model(x), rtol=0, atol=0)

    def test_onnx_computes_what_torch_does(self, model):
        session = onnxruntime.InferenceSession(
            to_onnx(checkpoint_of(model)).SerializeToString(), providers=["CPUExecutionProvider"]
        )
        for batch in (1, 3):
            images = np.random.default_rng(batch).normal(size=(batch, 3, 64, 96))
            images = images.astype(np.float32)
            (found,) = session.run(["logits"], {"images": images})
            with torch.inference_mode():
                expected = model(torch.from_numpy(images)).numpy()
            # float32 sums in another order; folded norms round once more
            np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
