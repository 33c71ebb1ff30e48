"""The local correlation in ONNX: one node, with a body of standard operators beside it.

The node ``cclseg::LocalCorrelation`` is what fast kernels take. A model-local function of the same
name holds the same arithmetic in standard operators, so that a file runs where no kernel is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

import onnx
import onnx.inliner
import onnx.shape_inference
import onnxscript
from onnx import TensorProto, helper

from cclseg.correlation import check_window
from cclseg.errors import InputError
from cclseg.suggest import did_you_mean

from .operator_body import write_body

if TYPE_CHECKING:
    from onnxscript import ir

DOMAIN = "cclseg"
OP_TYPE = "LocalCorrelation"
OP_VERSION = 1
TORCH_OP = "local_correlation"
"""Name of the torch operator, in the namespace :data:`DOMAIN`."""

_PLUGIN_DEFAULTS: dict[str, str | int | float] = {
    "plugin_namespace": DOMAIN,
    "plugin_version": str(OP_VERSION),
    "dilation": 1,
    "groups": 1,
    "normalize": 0,
    "out_dtype": 0,
    "a_scale": 1.0,
    "b_scale": 1.0,
    "out_scale": 1.0,
}

DType = Literal["float32", "float16", "int8"]

_OPSET = 18
_ELEMENT_TYPES: dict[str, int] = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int8": TensorProto.INT8,
}


def make_model(
    shape: tuple[int | str, int | str, int | str, int | str],
    *,
    radius: int,
    dilation: int = 1,
    groups: int = 1,
    normalize: bool = False,
    dtype: DType = "float32",
    scales: tuple[float, float] = (1.0, 1.0),
) -> onnx.ModelProto:
    """Makes a model of one correlation of its inputs ``a`` and ``b``, with output ``out``.

    Args:
        shape: (N, C, H, W) of both maps; a name stands for a size that is free.
        radius: Window radius.
        dilation: Step between places of the window.
        groups: Number of channel groups.
        normalize: Cosine similarity instead of the mean of products.
        dtype: Type of the maps; the result is float16 for float16, float32 otherwise.
        scales: Of int8 maps, a's and b's.

    Returns:
        A checked model with the function attached.

    Raises:
        InputError: The options do not fit the shape.
    """
    if dtype not in _ELEMENT_TYPES:
        raise InputError(f"no type '{dtype}'; {did_you_mean(dtype, _ELEMENT_TYPES)}")
    channels = shape[1] if isinstance(shape[1], int) else groups
    check_window(channels, radius=radius, dilation=dilation, groups=groups)
    attributes: dict[str, Any] = {
        "radius": radius, "dilation": dilation, "groups": groups, "normalize": int(normalize),
    }  # fmt: skip
    if dtype == "int8":
        attributes["a_scale"], attributes["b_scale"] = scales
    node = helper.make_node(OP_TYPE, ["a", "b"], ["out"], domain=DOMAIN, **attributes)
    window = groups * (2 * radius + 1) ** 2 if isinstance(groups, int) else None
    element = _ELEMENT_TYPES[dtype]
    out_element = element if dtype == "float16" else TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "local_correlation",
        [helper.make_tensor_value_info(name, element, shape) for name in ("a", "b")],
        [helper.make_tensor_value_info("out", out_element, (shape[0], window, *shape[2:]))],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=8,
        producer_name="cclseg",
    )
    return attach_function(model)


def attach_function(model: onnx.ModelProto) -> onnx.ModelProto:
    """Adds the body of standard operators to a model that holds correlation nodes, in place.

    A body that is already there is replaced.

    Returns:
        The model, checked; unchanged where it holds no correlation.

    Raises:
        InputError: The maps of its nodes have different types, or its operator set is too old.
    """
    nodes = correlation_nodes(model)
    if not nodes:
        return model
    remove_function(model)
    if DOMAIN not in {entry.domain for entry in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(DOMAIN, OP_VERSION))
    maps = _first_maps(model, nodes)
    attributes = [_attributes(node) for node in nodes]
    kinds = {bool(entry.get("normalize", 0)) for entry in attributes}
    function = write_body(
        opset=_opset_of(model),
        dtype=_dtype_of(maps),
        windows={(entry["radius"], entry.get("dilation", 1)) for entry in attributes},
        depth=max(
            _channels(info) / entry.get("groups", 1)
            for info, entry in zip(maps, attributes, strict=True)
        ),
        divisor="either" if len(kinds) > 1 else "cosine" if True in kinds else "mean",
    )
    model.functions.append(function)
    onnx.checker.check_model(model)
    return model


def remove_function(model: onnx.ModelProto) -> onnx.ModelProto:
    """Removes the body in place, so that nothing but a kernel or plug-in can take the nodes."""
    kept = [f for f in model.functions if (f.domain, f.name) != (DOMAIN, OP_TYPE)]
    del model.functions[:]
    model.functions.extend(kept)
    return model


def inline_function(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy in which standard operators have taken the place of the nodes."""
    work = onnx.ModelProto.FromString(model.SerializeToString())
    defaults = {
        entry.name: entry
        for function in work.functions
        if (function.domain, function.name) == (DOMAIN, OP_TYPE)
        for entry in function.attribute_proto
    }
    for node in correlation_nodes(work):
        # onnx 1.23 leaves a constant empty where a node relies on the default of its attribute.
        missing = defaults.keys() - {entry.name for entry in node.attribute}
        node.attribute.extend(defaults[name] for name in sorted(missing))
    return onnx.inliner.inline_selected_functions(work, [(DOMAIN, OP_TYPE)])


def name_plugin(model: onnx.ModelProto) -> onnx.ModelProto:
    """Prepares a model for TensorRT, in place: nodes name the plug-in, and no body hides it.

    In an INT8 network a node takes the place of the Q/DQ nodes around it. It then has the int8
    results of the Q nodes (zero point 0, one step for the whole tensor) as inputs, and carries:

    - ``a_scale``, ``b_scale`` (float): the steps of those Q nodes;
    - ``out_dtype`` (int): type of its result in ONNX's numbering, 1 (float32, also when absent),
      10 (float16), or 3 (int8), where it has taken in the Q node behind it, too;
    - ``out_scale`` (float): the step of that Q node.

    Whatever a node does not carry is written with its default: TensorRT's parser warns of each
    field of a plug-in that it does not find.
    """
    for node in correlation_nodes(model):
        present = {entry.name for entry in node.attribute}
        for key, value in _PLUGIN_DEFAULTS.items():
            if key not in present:
                node.attribute.append(helper.make_attribute(key, value))
    return remove_function(model)


def correlation_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Returns the correlation nodes of a model's graph, in its order."""
    return [n for n in model.graph.node if (n.domain, n.op_type) == (DOMAIN, OP_TYPE)]


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Returns what ``torch.onnx.export`` needs to keep one node per correlation.

    Give it as ``custom_translation_table``, then call :func:`attach_function` on the result.
    """
    return {_torch_operator(): _translate}


def decomposition(*, keep_windows: bool = False) -> dict[Any, Callable[..., Any]]:
    """Returns what ``ExportedProgram.run_decompositions`` needs to leave no correlation node.

    Args:
        keep_windows: Leave those over windows of more than one place. The rest are plain products
            of two maps, which a library computes beside its other element-wise work and in its own
            layout of the maps, where a kernel would make it change that layout.
    """
    from cclseg_trainer.ops import expanded

    def expand(a: Any, b: Any, radius: int, *options: Any) -> Any:  # noqa: ANN401 - torch tensors
        return NotImplemented if keep_windows and radius else expanded(a, b, radius, *options)

    return {_torch_operator(): expand}


def _torch_operator() -> Any:  # noqa: ANN401 - torch's operators have no public type
    import torch

    import cclseg_trainer.ops  # noqa: F401 - registers the operator

    return getattr(getattr(torch.ops, DOMAIN), TORCH_OP).default


def _translate(
    a: ir.Value,
    b: ir.Value,
    radius: int,
    dilation: int = 1,
    groups: int = 1,
    normalize: bool = False,
) -> Any:  # noqa: ANN401 - what onnxscript's tracer returns
    node = onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, OP_VERSION), OP_TYPE, _schema())
    return node(a, b, radius=radius, dilation=dilation, groups=groups, normalize=int(normalize))


def _schema() -> onnx.defs.OpSchema:
    """Describes the node to the exporter."""
    schema = onnx.defs.OpSchema
    kind = onnx.defs.OpSchema.AttrType
    return schema(
        OP_TYPE,
        DOMAIN,
        OP_VERSION,
        doc="Correlates each place of one map with a window of places of another.",
        inputs=[schema.FormalParameter("a", "T"), schema.FormalParameter("b", "T")],
        outputs=[schema.FormalParameter("out", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "floating maps")],
        attributes=[
            schema.Attribute("radius", kind.INT, "window radius"),
            schema.Attribute("dilation", helper.make_attribute("dilation", 1), "step"),
            schema.Attribute("groups", helper.make_attribute("groups", 1), "channel groups"),
            schema.Attribute("normalize", helper.make_attribute("normalize", 0), "cosine"),
        ],
    )


def _opset_of(model: onnx.ModelProto) -> int:
    """Returns the version of the standard operators, which a body must share with its model."""
    found = next((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), 0)
    if found < _OPSET:
        raise InputError(f"the model imports operator set {found}; export it with {_OPSET} or more")
    return int(found)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _first_maps(
    model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]
) -> list[onnx.TypeProto.Tensor]:
    """Returns what is known of the first map of each node."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    known = {
        info.name: info.type.tensor_type
        for infos in (graph.input, graph.value_info, graph.output)
        for info in infos
    }
    unknown = helper.make_tensor_type_proto(TensorProto.FLOAT, None).tensor_type
    return [known.get(node.input[0], unknown) for node in nodes]


def _channels(maps: onnx.TypeProto.Tensor) -> float:
    """Returns the number of channels, infinity where the model does not say it."""
    sizes = maps.shape.dim
    return (sizes[1].dim_value if len(sizes) == 4 else 0) or float("inf")


def _dtype_of(maps: Iterable[onnx.TypeProto.Tensor]) -> str:
    """Returns the one type of all maps."""
    found = {entry.elem_type for entry in maps}
    names = [name for name, element in _ELEMENT_TYPES.items() if element in found]
    if len(found) != 1 or len(names) != 1:
        raise InputError(
            f"the correlations of this model take maps of the types {sorted(found)}; expected one "
            "of float32, float16 and int8 for all"
        )
    return names[0]
