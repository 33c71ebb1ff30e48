"""The body of the correlation's node: its arithmetic in standard operators, as ONNX text."""

from __future__ import annotations

import onnx
import onnx.parser

_TILE = 16
_MOST_SHIFTED = 256  # lags times channels; measured on two libraries, which agree on about this

_HEAD = """
<opset_import: ["" : {opset}], domain: "cclseg">
LocalCorrelation <radius, dilation: int = 1, groups: int = 1, normalize: int = 0,
                  a_scale: float = 1.0, b_scale: float = 1.0> (a, b) => (out)
{{
  one = Constant <value_ints = [1]> ()
  zero = Constant <value_ints = [0]> ()
  rest = Constant <value_ints = [-1]> ()
  zero_scalar = Constant <value_int = 0> ()
  one_scalar = Constant <value_int = 1> ()
  radius_scalar = Constant <value_int: int = @radius> ()
  step_scalar = Constant <value_int: int = @dilation> ()
  groups_scalar = Constant <value_int: int = @groups> ()
  step = Reshape (step_scalar, one)
  group_count = Reshape (groups_scalar, one)
  reach_scalar = Mul (radius_scalar, step_scalar)
  reach = Reshape (reach_scalar, one)
  two_reach = Add (reach, reach)
  channels = Shape <start = 1, end = 2> (a)
  height = Shape <start = 2, end = 3> (a)
  width = Shape <start = 3, end = 4> (a)
  depth = Div (channels, group_count)
  padded_height = Add (height, two_reach)
"""

# The band form. A row of a is cut into tiles of T places, the rows of b into overlapping bands of
# B = T + 2 reach places: all that a tile's windows see in their row. One matrix product per tile
# and vertical lag multiplies each place with each place of the band; of those (T, B) products the
# windows are a diagonal stripe. Appending T values to the flattened product and reading it with
# rows that are one longer moves the stripe into the first columns.
_BAND_FORM = """
  tile = Constant <value_ints = [{tile}]> ()
  tile_less_one = Constant <value_ints = [{tile_less_one}]> ()
  extra = Constant <value_ints = [{extra}]> ()
  band_and_one = Constant <value_ints = [{band_and_one}]> ()
  column_axis = Constant <value_ints = [3]> ()
  side_scalar_less_one = Add (radius_scalar, radius_scalar)
  side_scalar = Add (side_scalar_less_one, one_scalar)
  stripe = Add (two_reach, one)
  width_and_rest = Add (width, tile_less_one)
  tiles = Div (width_and_rest, tile)
  tiles_and_extra = Add (tiles, extra)
  tiled_width = Mul (tiles, tile)
  banded_width = Mul (tiles_and_extra, tile)

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
  result = Slice (wide, zero, width, column_axis)
"""

_BAND_NORMS = """
  place_axis = Constant <value_ints = [-1]> ()
  left_norms = ReduceL2 (left, place_axis)
  depth_axis = Constant <value_ints = [4]> ()
  band_norms = ReduceL2 (bands, depth_axis)
  right_norms = Gather <axis = 2> (band_norms, row_of_lag)
  norm_products = Mul (left_norms, right_norms)
"""

# The shift form: one product of maps per lag. For few lags and channels it moves less than the band
# form, which pads, tiles and turns the maps whatever the window is.
_SHIFT_FORM = """
  grouped_shape = Concat <axis = 0> (zero, group_count, depth, height, width)
  left = Reshape (a_float, grouped_shape)
  b_pads = Concat <axis = 0> (zero, zero, reach, reach, zero, zero, reach, reach)
  b_padded = Pad (b_float, b_pads)
  padded_width = Add (width, two_reach)
  b_shape = Concat <axis = 0> (zero, group_count, depth, padded_height, padded_width)
  right = Reshape (b_padded, b_shape)
  depth_axis = Constant <value_ints = [2]> ()
  row_and_column = Constant <value_ints = [3, 4]> ()
  size = Concat <axis = 0> (height, width)
{sums}
{divisor}
  products = Div (sums, divisor)
  out_shape = Concat <axis = 0> (zero, rest, height, width)
  result = Reshape (products, out_shape)
"""

_SHIFT_NORMS = """
  left_norms = ReduceL2 (left, depth_axis)
  right_norms = ReduceL2 (right, depth_axis)
{shifted_norms}
  norm_products = Mul (left_norms, seen_norms)
"""

_COSINE = """
  eps = Constant <value_float = 1e-6> ()
  norms = Max (norm_products, eps)
"""
_DEPTH = """
  float_depth = Cast <to = 1> (depth)
"""
_DIVISORS = {
    "cosine": "{norms}" + _COSINE + "  divisor = Identity (norms)",
    "mean": _DEPTH + "  divisor = Identity (float_depth)",
    "either": "{norms}"
    + _COSINE
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


def write_body(
    *, opset: int, dtype: str, windows: set[tuple[int, int]], depth: float, divisor: str
) -> onnx.FunctionProto:
    """Writes the function that stands for the nodes of a model.

    Args:
        opset: Version of the standard operators, at least 18.
        dtype: Type of the maps: "float32", "float16" or "int8".
        windows: Radius and dilation of each node.
        depth: Channels per group, of the node with most of them; infinity where not known.
        divisor: "mean" where no node normalises, "cosine" where all do, else "either".
    """
    radius, dilation = max(windows)
    if len(windows) == 1 and (2 * radius + 1) ** 2 * depth <= _MOST_SHIFTED:
        form = _shift_form(radius, dilation, divisor)
    else:
        form = _band_form(max(r * step for r, step in windows), divisor)
    parts = (_HEAD.format(opset=opset), *(_to_float(m, dtype) for m in "ab"), form)
    return onnx.parser.parse_function("".join((*parts, _from_float(dtype), "}")))


def _band_form(reach: int, divisor: str) -> str:
    return _BAND_FORM.format(
        tile=_TILE,
        tile_less_one=_TILE - 1,
        extra=-(-2 * reach // _TILE),
        band_and_one=_TILE + 2 * reach + 1,
        bands=_bands(reach),
        divisor=_DIVISORS[divisor].format(norms=_BAND_NORMS),
    )


def _bands(reach: int) -> str:
    """Lays each tile and the ``2 reach`` places right of it side by side."""
    lines = ["  column_and_place = Constant <value_ints = [3, 5]> ()"]
    widths = [min(_TILE, _TILE + 2 * reach - begin) for begin in range(0, _TILE + 2 * reach, _TILE)]
    for shift, width in enumerate(widths):
        lines += [
            f"  shift{shift} = Constant <value_ints = [{shift}]> ()",
            f"  last{shift} = Add (shift{shift}, tiles)",
            f"  begin{shift} = Constant <value_ints = [{shift}, 0]> ()",
            f"  width{shift} = Constant <value_ints = [{width}]> ()",
            f"  end{shift} = Concat <axis = 0> (last{shift}, width{shift})",
            f"  part{shift} = Slice (b_rows, begin{shift}, end{shift}, column_and_place)",
        ]
    parts = ", ".join(f"part{shift}" for shift in range(len(widths)))
    return "\n".join([*lines, f"  bands = Concat <axis = 5> ({parts})"])


def _shift_form(radius: int, dilation: int, divisor: str) -> str:
    side = 2 * radius + 1
    sums, norms = [], []
    for lag in range(side * side):
        y, x = divmod(lag, side)
        sums += [
            f"  begin{lag} = Constant <value_ints = [{y * dilation}, {x * dilation}]> ()",
            f"  end{lag} = Add (begin{lag}, size)",
            f"  seen{lag} = Slice (right, begin{lag}, end{lag}, row_and_column)",
            f"  product{lag} = Mul (left, seen{lag})",
            f"  sum{lag} = ReduceSum (product{lag}, depth_axis)",
        ]
        norms.append(f"  norm{lag} = Slice (right_norms, begin{lag}, end{lag}, row_and_column)")
    for lines, name, lag_names in ((sums, "sums", "sum"), (norms, "seen_norms", "norm")):
        listed = ", ".join(f"{lag_names}{lag}" for lag in range(side * side))
        lines.append(f"  {name} = Concat <axis = 2> ({listed})")
    shifted = _SHIFT_NORMS.format(shifted_norms="\n".join(norms))
    return _SHIFT_FORM.format(
        sums="\n".join(sums), divisor=_DIVISORS[divisor].format(norms=shifted)
    )


def _to_float(name: str, dtype: str) -> str:
    if dtype == "int8":
        return _SCALED.format(map=name)
    if dtype == "float16":
        return f"  {name}_float = Cast <to = 1> ({name})\n"
    return f"  {name}_float = Identity ({name})\n"


def _from_float(dtype: str) -> str:
    return f"  out = {'Cast <to = 10>' if dtype == 'float16' else 'Identity'} (result)\n"
