"""What each place where a network runs wants to find in an INT8 file.

No single file suits all. x86 and Arm dot-product instructions pair unsigned activations with
signed weights, and ONNX Runtime runs a convolution in INT8 only where its output is quantised too.
TensorRT takes signed numbers with zero point 0 and floating-point biases, and quantises a sum only
where that does not part a convolution from the addition behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from cclseg.errors import InputError
from cclseg.suggest import did_you_mean

Target = Literal["cpu", "openvino", "tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRules:
    """How a file for one target is written.

    Attributes:
        unsigned: Activations are 8 bits from 0 to 255, with zero point 0 or 128; else from -128
            to 127 with zero point 0.
        whole_chains: Outputs are quantised and biases are integers, so that a layer takes and
            gives integers; else only what a quantised layer takes is quantised.
        weighted: Operators with weights that the target computes in INT8.
        correlation: What becomes of a correlation node: it keeps its body of standard operators
            ("function"), that takes its place ("inlined"), or a plug-in must take the node, with
            integers as input ("plugin").
        newest_opset: The newest standard operator set that the target reads.
    """

    unsigned: bool
    whole_chains: bool
    weighted: frozenset[str]
    correlation: Literal["function", "inlined", "plugin"]
    newest_opset: int


_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})

TARGETS: dict[str, TargetRules] = {
    # ONNX Runtime has no INT8 kernel for ConvTranspose.
    "cpu": TargetRules(
        unsigned=True,
        whole_chains=True,
        weighted=_PRODUCTS,
        correlation="function",
        newest_opset=21,
    ),
    "openvino": TargetRules(
        unsigned=True,
        whole_chains=True,
        weighted=_PRODUCTS | {"ConvTranspose"},
        correlation="inlined",
        newest_opset=21,
    ),
    "tensorrt": TargetRules(
        unsigned=False,
        whole_chains=False,
        weighted=_PRODUCTS | {"ConvTranspose"},
        correlation="plugin",
        newest_opset=20,
    ),
    "tensorrt-rtx": TargetRules(
        unsigned=False,
        whole_chains=False,
        weighted=_PRODUCTS | {"ConvTranspose"},
        correlation="inlined",
        newest_opset=20,
    ),
}
"""The rules by target. TensorRT 10.3 reads operator set 20, ONNX Runtime 1.18 reads 21."""


def rules_of(target: str, *, plugin: bool | None = None) -> TargetRules:
    """Returns the rules of a target.

    Args:
        target: Its name.
        plugin: Whether a plug-in takes the correlations, None for what suits the target.

    Raises:
        InputError: There is no such target.
    """
    if target not in TARGETS:
        raise InputError(f"no target '{target}'; {did_you_mean(target, TARGETS)}")
    rules = TARGETS[target]
    if plugin is None:
        return rules
    if plugin and rules.unsigned:
        raise InputError(f"the target '{target}' has no plug-ins; leave plugin out")
    return replace(rules, correlation="plugin" if plugin else "inlined")
