"""INT8 networks on their way to TensorRT: the correlation takes over the Q/DQ nodes around it."""

from __future__ import annotations

import folded_correlation
import numpy as np
import onnx
import pytest
import tensorrt_plugin
from native_libraries import native_plugin

from cclseg_export.operator import name_plugin


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(2, 4, 9, 13)).astype(np.float32)


def test_every_form_gives_the_same_logits(images):
    """Folding moves the steps from the Q nodes to the correlation, and changes no number."""
    apart, inputs, both = (
        folded_correlation.run_as_plugin(folded_correlation.network(form), images=images)[0]
        for form in ("apart", "inputs", "both")
    )
    assert apart.std() > 0.1
    np.testing.assert_array_equal(inputs, apart)
    np.testing.assert_array_equal(both, apart)


@pytest.mark.parametrize(
    ("form", "plugin_types"),
    [
        ("apart", ["FLOAT", "FLOAT", "FLOAT"]),
        ("inputs", ["INT8", "INT8", "FLOAT"]),
        ("both", ["INT8", "INT8", "INT8"]),
    ],
)
def test_an_engine_is_built_of_every_form(tmp_path, form, plugin_types):
    for module in ("tensorrt_rtx_bindings", "tensorrt_rtx_libs"):
        if not tensorrt_plugin.is_installed(module):
            pytest.skip(f"{module} is not installed (group test-trt)")
    path = tmp_path / "model.onnx"
    onnx.save(name_plugin(folded_correlation.network(form)), path)
    report = tensorrt_plugin.build_rtx_engine(native_plugin(), path, tmp_path)
    assert report["plugin_types"] == plugin_types
    assert report["output_shape"] == [-1, 3, -1, -1]
