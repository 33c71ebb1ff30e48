"""One small INT8 network in the forms that a correlation takes on its way to TensorRT.

"apart" is what a quantizer writes: Q and DQ nodes around a floating correlation. "inputs" is what
the plugin wants: the DQ nodes in front of it are gone, the node takes the int8 tensors and carries
their steps. In "both" the Q node behind it is gone, too, and the node writes int8 itself.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
import onnx.parser
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from cclseg.correlation import local_correlation

Form = Literal["apart", "inputs", "both"]

A_STEP, B_STEP, OUT_STEP = 0.03125, 0.046875, 0.0078125
CHANNELS, RADIUS, GROUPS = 8, 2, 2

_NETWORK = """
<ir_version: 8, opset_import: ["" : 18, "cclseg" : 1]>
network (float[N, 4, H, W] images) => (float[N, 3, H, W] logits) {{
  images_q = QuantizeLinear (images, image_step, zero)
  images_dq = DequantizeLinear (images_q, image_step, zero)
  a_weights = DequantizeLinear (a_weights_q, weight_step, zero)
  b_weights = DequantizeLinear (b_weights_q, weight_step, zero)
  gate_weights = DequantizeLinear (gate_weights_q, weight_step, zero)
  a_conv = Conv (images_dq, a_weights)
  a = Relu (a_conv)
  b = Conv (images_dq, b_weights)
  a_q = QuantizeLinear (a, a_step, zero)
  b_q = QuantizeLinear (b, b_step, zero)
{correlation}
  out_dq = DequantizeLinear (out_q, out_step, zero)
  logits = Conv (out_dq, gate_weights)
}}
"""
_OPTIONS = f"radius = {RADIUS}, groups = {GROUPS}, normalize = 1"
_INT8 = f"{_OPTIONS}, a_scale = {A_STEP}, b_scale = {B_STEP}"
_CORRELATIONS: dict[Form, str] = {
    "apart": f"""
  a_dq = DequantizeLinear (a_q, a_step, zero)
  b_dq = DequantizeLinear (b_q, b_step, zero)
  out = cclseg.LocalCorrelation <{_OPTIONS}> (a_dq, b_dq)
  out_q = QuantizeLinear (out, out_step, zero)""",
    "inputs": f"""
  out = cclseg.LocalCorrelation <{_INT8}, out_dtype = 1> (a_q, b_q)
  out_q = QuantizeLinear (out, out_step, zero)""",
    "both": f"""
  out_q = cclseg.LocalCorrelation <{_INT8}, out_dtype = 3, out_scale = {OUT_STEP}>
          (a_q, b_q)""",
}


def network(form: Form) -> onnx.ModelProto:
    """The network with free batch and size, and no body of the correlation."""
    model = onnx.parser.parse_model(_NETWORK.format(correlation=_CORRELATIONS[form]))
    rng = np.random.default_rng(0)
    window = GROUPS * (2 * RADIUS + 1) ** 2
    for name, shape in (
        ("a_weights_q", (CHANNELS, 4, 1, 1)),
        ("b_weights_q", (CHANNELS, 4, 1, 1)),
        ("gate_weights_q", (3, window, 1, 1)),
    ):
        weights = rng.integers(-127, 128, shape, np.int8)
        model.graph.initializer.append(numpy_helper.from_array(weights, name))
    for name, step in (
        ("image_step", 0.03125), ("weight_step", 0.0078125), ("a_step", A_STEP),
        ("b_step", B_STEP), ("out_step", OUT_STEP),
    ):  # fmt: skip
        model.graph.initializer.append(numpy_helper.from_array(np.float32(step), name))
    model.graph.initializer.append(numpy_helper.from_array(np.int8(0), "zero"))
    onnx.checker.check_model(model)
    return model


class LocalCorrelation(OpRun):
    """What the plugin computes for a node, by the definition in float64."""

    op_domain = "cclseg"

    def _run(
        self, a, b, *, radius, dilation=1, groups=1, normalize=0,
        a_scale=1.0, b_scale=1.0, out_scale=1.0, out_dtype=None, **_names,
    ):  # fmt: skip
        if a.dtype == np.int8:
            a, b = (m * np.float64(scale) for m, scale in ((a, a_scale), (b, b_scale)))
        out = local_correlation(
            a.astype(np.float64), b.astype(np.float64),
            radius=radius, dilation=dilation, groups=groups, normalize=bool(normalize),
        )  # fmt: skip
        wanted = np.dtype(helper.tensor_dtype_to_np_dtype(out_dtype or 1))
        if wanted == np.int8:
            out = np.clip(np.rint(out / out_scale), -128, 127)
        return (out.astype(wanted),)


def run_as_plugin(model: onnx.ModelProto, **feeds) -> list[np.ndarray]:
    """Runs a model whose correlations have the attributes of the plugin; slow, for small maps."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for entry in model.opset_import:
        if entry.domain == "":  # the evaluator knows Q and DQ from 19 on, which changed no number
            entry.version = max(entry.version, 19)
    return ReferenceEvaluator(model, new_ops=[LocalCorrelation]).run(None, feeds)
