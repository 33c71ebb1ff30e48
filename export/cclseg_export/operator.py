"""The local correlation in ONNX: one node, with a body of standard operators beside it.

The node ``cclseg::LocalCorrelation`` is what fast kernels take. A model-local function of the same
name holds the same arithmetic in standard operators, so that a file runs where no kernel is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

import onnx
import onnx.inliner
import onnx.parser
import onnxscript
from onnx import TensorProto, helper

from cclseg.correlation import check_window
from cclseg.errors import InputError
from cclseg.suggest import did_you_mean

if TYPE_CHECKING:
    from onnxscript import ir

DOMAIN = "cclseg"
OP_TYPE = "LocalCorrelation"
OP_VERSION = 1
TORCH_OP = "local_correlation"
"""Name of the torch operator, in the namespace :data:`DOMAIN`."""

DType = Literal["float32", "float16", "int8"]

_OPSET = 18
_TILE = 16
_ELEMENT_TYPES: dict[str, int] = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int8": TensorProto.INT8,
}

# The band form. A row of a is cut into tiles of T places, the rows of b into overlapping bands of
# T + E T places that hold all that a tile's windows reach in their row. One matrix product per
# tile and vertical lag multiplies each place with each place of the band; of those (T, T + E T)
# products the windows are a diagonal stripe. Appending T values to the flattened product and
# reading it with rows that are one longer moves the stripe into the first columns.
# Shapes: P is the padded height, S = 2 radius + 1, L tiles in a row, B = T + E T.
_BODY = """
<opset_import: ["" : {opset}], domain: "cclseg">
LocalCorrelation <radius, dilation: int = 1, groups: int = 1, normalize: int = 0,
                  a_scale: float = 1.0, b_scale: float = 1.0> (a, b) => (out)
{{
  one = Constant <value_ints = [1]> ()
  zero = Constant <value_ints = [0]> ()
  tile = Constant <value_ints = [{tile}]> ()
  tile_less_one = Constant <value_ints = [{tile_less_one}]> ()
  extra = Constant <value_ints = [{extra}]> ()
  band = Constant <value_ints = [{band}]> ()
  band_and_one = Constant <value_ints = [{band_and_one}]> ()
  rest = Constant <value_ints = [-1]> ()
  column_axis = Constant <value_ints = [3]> ()
  zero_scalar = Constant <value_int = 0> ()
  one_scalar = Constant <value_int = 1> ()
  radius_scalar = Constant <value_int: int = @radius> ()
  step_scalar = Constant <value_int: int = @dilation> ()
  groups_scalar = Constant <value_int: int = @groups> ()
  step = Reshape (step_scalar, one)
  group_count = Reshape (groups_scalar, one)
  side_scalar_less_one = Add (radius_scalar, radius_scalar)
  side_scalar = Add (side_scalar_less_one, one_scalar)
  reach_scalar = Mul (radius_scalar, step_scalar)
  reach = Reshape (reach_scalar, one)
  two_reach = Add (reach, reach)
  stripe = Add (two_reach, one)

  channels = Shape <start = 1, end = 2> (a)
  height = Shape <start = 2, end = 3> (a)
  width = Shape <start = 3, end = 4> (a)
  depth = Div (channels, group_count)
  padded_height = Add (height, two_reach)
  width_and_rest = Add (width, tile_less_one)
  tiles = Div (width_and_rest, tile)
  tiles_and_extra = Add (tiles, extra)
  tiled_width = Mul (tiles, tile)
  banded_width = Mul (tiles_and_extra, tile)

{to_float}
  a_right = Sub (tiled_width, width)
  a_pads = Concat <axis = 0> (zero, zero, zero, zero, zero, zero, zero, a_right)
  a_padded = Pad (a_float, a_pads)
  a_shape = Concat <axis = 0> (zero, group_count, depth, height, tiles, tile)
  a_tiles = Reshape (a_padded, a_shape)
  a_rows = Transpose <perm = [0, 1, 3, 4, 5, 2]> (a_tiles)
  lag_axis = Constant <value_ints = [2]> ()
  left = Unsqueeze (a_rows, lag_axis)

  b_taken = Add (width, reach)
  b_right = Sub (banded_width, b_taken)
  b_pads = Concat <axis = 0> (zero, zero, reach, reach, zero, zero, reach, b_right)
  b_padded = Pad (b_float, b_pads)
  b_shape = Concat <axis = 0> (zero, group_count, depth, padded_height, tiles_and_extra, tile)
  b_tiles = Reshape (b_padded, b_shape)
  b_rows = Transpose <perm = [0, 1, 3, 4, 2, 5]> (b_tiles)
{bands}

  side_ends = Range (zero_scalar, side_scalar, one_scalar)
  lag_rows = Mul (side_ends, step_scalar)
  lag_column = Unsqueeze (lag_rows, one)
  height_scalar = Squeeze (height)
  rows = Range (zero_scalar, height_scalar, one_scalar)
  row_of_lag = Add (lag_column, rows)
  right = Gather <axis = 2> (bands, row_of_lag)
  sums = MatMul (left, right)

{divisor}
  products = Div (sums, divisor)

  flat_shape = Constant <value_ints = [0, 0, 0, 0, 0, -1]> ()
  flat = Reshape (products, flat_shape)
  skew_pads = Constant <value_ints = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {tile}]> ()
  longer = Pad (flat, skew_pads)
  skew_shape = Concat <axis = 0> (zero, zero, zero, zero, zero, tile, band_and_one)
  skewed = Reshape (longer, skew_shape)
  last_axis = Constant <value_ints = [6]> ()
  windows = Slice (skewed, zero, stripe, last_axis, step)
  lags_first = Transpose <perm = [0, 1, 2, 6, 3, 4, 5]> (windows)
  out_shape = Concat <axis = 0> (zero, rest, height, tiled_width)
  wide = Reshape (lags_first, out_shape)
{from_float}
}}
"""

_NORMS = """
  place_axis = Constant <value_ints = [-1]> ()
  left_norms = ReduceL2 (left, place_axis)
  depth_axis = Constant <value_ints = [4]> ()
  band_norms = ReduceL2 (bands, depth_axis)
  right_norms = Gather <axis = 2> (band_norms, row_of_lag)
  norm_products = Mul (left_norms, right_norms)
  eps = Constant <value_float = 1e-6> ()
  norms = Max (norm_products, eps)
"""
_DEPTH = """
  float_depth = Cast <to = 1> (depth)
"""
_DIVISORS = {
    "cosine": _NORMS + "  divisor = Identity (norms)",
    "mean": _DEPTH + "  divisor = Identity (float_depth)",
    "either": _NORMS
    + _DEPTH
    + """
  normalize_scalar = Constant <value_int: int = @normalize> ()
  is_cosine = Cast <to = 9> (normalize_scalar)
  divisor = Where (is_cosine, norms, float_depth)""",
}

_SCALED = """
  {map}_cast = Cast <to = 1> ({map})
  {map}_factor = Constant <value_float: float = @{map}_scale> ()
  {map}_float = Mul ({map}_cast, {map}_factor)
"""


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
    attributes = [
        {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        for node in nodes
    ]
    reach = max(entry["radius"] * entry.get("dilation", 1) for entry in attributes)
    kinds = {bool(entry.get("normalize", 0)) for entry in attributes}
    function = _function(
        opset=_opset_of(model),
        dtype=_dtype_of(model, nodes),
        reach=reach,
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
    return onnx.inliner.inline_selected_functions(model, [(DOMAIN, OP_TYPE)])


def name_plugin(model: onnx.ModelProto) -> onnx.ModelProto:
    """Prepares a model for TensorRT, in place: nodes name the plug-in, and no body hides it.

    In an INT8 network a node takes the place of the Q/DQ nodes around it. It then has the int8
    results of the Q nodes (zero point 0, one step for the whole tensor) as inputs, and carries:

    - ``a_scale``, ``b_scale`` (float): the steps of those Q nodes;
    - ``out_dtype`` (int): type of its result in ONNX's numbering, 1 (float32, also when absent),
      10 (float16), or 3 (int8), where it has taken in the Q node behind it, too;
    - ``out_scale`` (float): the step of that Q node.
    """
    for node in correlation_nodes(model):
        present = {entry.name for entry in node.attribute}
        for key, value in (("plugin_namespace", DOMAIN), ("plugin_version", str(OP_VERSION))):
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


def decomposition() -> dict[Any, Callable[..., Any]]:
    """Returns what ``ExportedProgram.run_decompositions`` needs to leave no correlation node."""
    from cclseg_trainer.ops import expanded

    return {_torch_operator(): expanded}


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


def _function(*, opset: int, dtype: str, reach: int, divisor: str) -> onnx.FunctionProto:
    """Writes the body for maps of one type, for windows that reach so many places at most."""
    extra = -(-2 * reach // _TILE)
    text = _BODY.format(
        opset=opset,
        tile=_TILE,
        tile_less_one=_TILE - 1,
        extra=extra,
        band=_TILE * (1 + extra),
        band_and_one=_TILE * (1 + extra) + 1,
        to_float="".join(_to_float(name, dtype) for name in ("a", "b")),
        bands=_bands(extra),
        divisor=_DIVISORS[divisor],
        from_float=_from_float(dtype),
    )
    return onnx.parser.parse_function(text)


def _to_float(name: str, dtype: str) -> str:
    if dtype == "int8":
        return _SCALED.format(map=name)
    if dtype == "float16":
        return f"  {name}_float = Cast <to = 1> ({name})\n"
    return f"  {name}_float = Identity ({name})\n"


def _from_float(dtype: str) -> str:
    if dtype != "float16":
        return "  out = Slice (wide, zero, width, column_axis)"
    return "  narrow = Slice (wide, zero, width, column_axis)\n  out = Cast <to = 10> (narrow)"


def _bands(extra: int) -> str:
    """Lays each tile and those right of it, ``extra`` of them, side by side."""
    lines = []
    for shift in range(extra + 1):
        lines.append(f"  begin{shift} = Constant <value_ints = [{shift}]> ()")
        lines.append(f"  end{shift} = Add (begin{shift}, tiles)")
        lines.append(f"  part{shift} = Slice (b_rows, begin{shift}, end{shift}, column_axis)")
    parts = ", ".join(f"part{shift}" for shift in range(extra + 1))
    lines.append(f"  bands = Concat <axis = 5> ({parts})")
    return "\n".join(lines)


def _opset_of(model: onnx.ModelProto) -> int:
    """Returns the version of the standard operators, which a body must share with its model."""
    found = next((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), 0)
    if found < _OPSET:
        raise InputError(f"the model imports operator set {found}; export it with {_OPSET} or more")
    return int(found)


def _dtype_of(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> str:
    """Returns the type of the maps, float32 where the model does not say it."""
    known = {
        info.name: info.type.tensor_type.elem_type
        for infos in (model.graph.input, model.graph.value_info, model.graph.output)
        for info in infos
    }
    found = {known.get(node.input[0], TensorProto.FLOAT) for node in nodes}
    names = [name for name, element in _ELEMENT_TYPES.items() if element in found]
    if len(found) != 1 or len(names) != 1:
        raise InputError(
            f"the correlations of this model take maps of the types {sorted(found)}; expected one "
            "of float32, float16 and int8 for all"
        )
    return names[0]
