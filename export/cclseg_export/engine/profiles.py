"""Which input shapes an engine is built for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cclseg.errors import InputError
from cclseg.suggest import did_you_mean

if TYPE_CHECKING:
    from cclseg.engine_record import Shapes
    from cclseg.onnx_file import TensorInfo
    from cclseg.spec import ModelSpec

    from .options import BuildOptions, NamedShapes

_MOST_TILES = 8


def plan_profile(
    inputs: Sequence[TensorInfo], spec: ModelSpec | None, options: BuildOptions
) -> dict[str, Shapes]:
    """Returns the smallest, usual and largest shape of each input.

    An axis that the model fixes stays as it is. Of open axes the first is the number of tiles, 1
    to 8, and the others have the sizes of the spec, unless the options say otherwise.

    Raises:
        InputError: A shape is asked for that the model does not take, or the model leaves a size
            open and neither the spec nor the options give one.
    """
    asked = (options.smallest, options.usual, options.largest)
    for shapes in asked:
        _check_names(shapes, inputs)
    return {info.name: _shapes_of(info, len(inputs), spec, asked) for info in inputs}


def _check_names(shapes: NamedShapes, inputs: Sequence[TensorInfo]) -> None:
    names = [info.name for info in inputs]
    for name in shapes:
        if name and name not in names:
            raise InputError(f"the model has no input '{name}'; {did_you_mean(name, names)}")
        if not name and len(names) > 1:
            raise InputError(
                f"the model has the inputs {', '.join(names)}; say which: {names[0]}:1x3x512x512"
            )


def _shapes_of(
    info: TensorInfo,
    inputs: int,
    spec: ModelSpec | None,
    asked: tuple[NamedShapes, NamedShapes, NamedShapes],
) -> Shapes:
    given = [shapes.get(info.name) or (shapes.get("") if inputs == 1 else None) for shapes in asked]
    known = next((shape for shape in given if shape is not None), None)
    for shape in given:
        if shape is not None:
            _check_fits(shape, info)
    # What is not given follows what is: the usual shape is the smallest, the largest the usual.
    smallest = given[0] or _default(info, spec, tiles=1, sizes=known)
    usual = given[1] or given[0] or _default(info, spec, tiles=1, sizes=known)
    largest = given[2] or _default(info, spec, tiles=max(_MOST_TILES, usual[0]), sizes=usual)
    for axis, (low, middle, high) in enumerate(zip(smallest, usual, largest, strict=True)):
        if not low <= middle <= high:
            raise InputError(
                f"the sizes of axis {axis} of '{info.name}' are {low}, {middle} and {high}; "
                "expected smallest <= usual <= largest (--min, --opt, --max)"
            )
    return smallest, usual, largest


def _check_fits(shape: tuple[int, ...], info: TensorInfo) -> None:
    same = len(shape) == len(info.shape) and all(
        fixed in (None, size) for fixed, size in zip(info.shape, shape, strict=True)
    )
    if not same:
        raise InputError(f"got the shape {'x'.join(map(str, shape))}; the model takes {info}")


def _default(
    info: TensorInfo, spec: ModelSpec | None, *, tiles: int, sizes: tuple[int, ...] | None
) -> tuple[int, ...]:
    fallback: Sequence[int | None] = (None,) * len(info.shape)
    if sizes is not None:
        fallback = sizes
    elif spec is not None and len(info.shape) == 4:
        fallback = (tiles, len(spec.bands), *spec.input_hw)
    shape = []
    for axis, fixed in enumerate(info.shape):
        size = fixed or (tiles if axis == 0 else fallback[axis])
        if size is None:
            raise InputError(
                f"the model leaves axis {axis} of its input {info} open, and nothing says its "
                f"size; give it: --opt {info.name}:1x3x512x512"
            )
        shape.append(size)
    return tuple(shape)
