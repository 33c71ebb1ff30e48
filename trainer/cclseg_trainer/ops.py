"""The local cross-correlation as a differentiable torch operator.

``cclseg::local_correlation`` is registered with torch, so that ``torch.compile``, autocast and the
ONNX exporter see one operator. :mod:`cclseg.correlation` defines its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cclseg.correlation import EPS, Metric, check_window
from cclseg.errors import InputError

from . import ops_cuda

OP_NAME = "cclseg::local_correlation"

_Window = tuple[int, int, int]  # lag, first row and first column of the padded map


def local_correlation(
    a: Tensor,
    b: Tensor,
    *,
    radius: int,
    dilation: int = 1,
    groups: int = 1,
    normalize: bool = False,
    metric: Metric = "ncc",
) -> Tensor:
    """Correlates each place of one map with a window of places of another.

    ``out[n, g K + (dy + R)(2R + 1) + (dx + R), y, x] = (1 / d) sum_{c in group g}
    a[n, c, y, x] b[n, c, y + dy dilation, x + dx dilation]`` with K = (2R + 1)^2 and d channels
    per group; b is zero outside the map. With ``normalize`` the sum is divided by
    ``max(|a_g| |b_g|, 1e-6)``, the L2 norms of the two group vectors, instead of by d. With the
    metrics "ssd" and "sad" the products are squared or absolute differences; no kernel is needed
    for these, they are standard operators to torch and to the exporter.

    Under autocast it computes in float32. Forward and backward need memory for a few copies of
    the input and of the output. Second derivatives are not available.

    Args:
        a: (N, C, H, W) float.
        b: (N, C, H, W) float, the type of ``a``.
        radius: Window radius R >= 0.
        dilation: Step between places of the window, in pixels.
        groups: Number of channel groups; divides C.
        normalize: Cosine similarity instead of the mean of products.
        metric: What is averaged over the channels of a group.

    Returns:
        (N, groups * (2R + 1)^2, H, W), the type of ``a``.

    Raises:
        InputError: The maps differ, or an option does not fit them.
    """
    ops_cuda.check_maps(a, b)
    check_window(a.shape[1], radius=radius, dilation=dilation, groups=groups)
    if metric != "ncc":
        if normalize:
            raise InputError(f"got normalize with the metric '{metric}'; expected it with 'ncc'")
        return _distances(a, b, radius=radius, dilation=dilation, groups=groups, metric=metric)
    out: Tensor = torch.ops.cclseg.local_correlation(a, b, radius, dilation, groups, normalize)
    return out


def expanded(
    a: Tensor, b: Tensor, radius: int, dilation: int, groups: int, normalize: bool
) -> Tensor:
    """Computes the operator by standard operators alone, for graphs that must hold none of ours.

    The lags are divided together, not one by one, which leaves fewer nodes to run.
    """
    batch, channels, height, width = a.shape
    left, right = (
        maps.reshape(batch * groups, channels // groups, height, width) for maps in (a, b)
    )
    right = _padded(right, radius * dilation)
    if not normalize:
        left = left / left.shape[1]
    places = [
        (..., slice(y, y + height), slice(x, x + width)) for _, y, x in _windows(radius, dilation)
    ]
    out = torch.stack([(left * right[place]).sum(1) for place in places], 1)  # (N G, K, H, W)
    if normalize:
        norms = ((left * left).sum(1).sqrt(), (right * right).sum(1).sqrt())
        products = torch.stack([norms[0] * norms[1][place] for place in places], 1)
        out = out / products.clamp_min(EPS)
    return out.reshape(batch, -1, height, width)


def _distances(
    a: Tensor, b: Tensor, *, radius: int, dilation: int, groups: int, metric: Metric
) -> Tensor:
    """Averages squared or absolute differences, by standard operators alone."""
    height, width = a.shape[-2:]
    left = _grouped(a, groups)
    right = _padded(_grouped(b, groups), radius * dilation)
    planes = []
    for _, y, x in _windows(radius, dilation):
        difference = left - right[..., y : y + height, x : x + width]
        size = difference * difference if metric == "ssd" else difference.abs()
        planes.append(size.mean(2))
    return torch.stack(planes, 2).reshape(a.shape[0], -1, height, width)


def _by_lags(
    a: Tensor, b: Tensor, radius: int, dilation: int, groups: int, normalize: bool
) -> Tensor:
    """Computes the operator lag by lag, on any device and in any floating type."""
    work = _work_dtype(a)
    left = _grouped(a, groups).to(work)
    right = _padded(_grouped(b, groups).to(work), radius * dilation)
    height, width = a.shape[-2:]
    side = 2 * radius + 1
    out = left.new_empty(a.shape[0], groups, side * side, height, width)
    norms = (_norm(left), _norm(right)) if normalize else None
    for lag, y, x in _windows(radius, dilation):
        seen = right[..., y : y + height, x : x + width]
        torch.sum(left * seen, 2, out=out[:, :, lag])
        if norms is None:
            out[:, :, lag] /= left.shape[2]
        else:
            product = norms[0] * norms[1][..., y : y + height, x : x + width]
            out[:, :, lag] /= product.clamp_min_(EPS)
    return out.reshape(a.shape[0], -1, height, width).to(a.dtype)


_correlate = torch.library.custom_op(OP_NAME, _by_lags, mutates_args=())


@_correlate.register_kernel("cuda")
def _correlate_on_gpu(
    a: Tensor, b: Tensor, radius: int, dilation: int, groups: int, normalize: bool
) -> Tensor:
    """Takes the fused kernel where there is one for the type; the gradient needs none."""
    if not ops_cuda.takes(a):
        return _by_lags(a, b, radius, dilation, groups, normalize)
    return ops_cuda.correlate(
        a, b, radius=radius, dilation=dilation, groups=groups, normalize=normalize
    )


@_correlate.register_fake
def _(a: Tensor, b: Tensor, radius: int, dilation: int, groups: int, normalize: bool) -> Tensor:
    return a.new_empty(a.shape[0], groups * (2 * radius + 1) ** 2, *a.shape[2:])


@torch.library.custom_op(f"{OP_NAME}_backward", mutates_args=())
def _backward(
    grad: Tensor,
    a: Tensor,
    b: Tensor,
    radius: int,
    dilation: int,
    groups: int,
    normalize: bool,
) -> tuple[Tensor, Tensor]:
    work = _work_dtype(a)
    reach = radius * dilation
    left = _grouped(a, groups).to(work)
    right = _padded(_grouped(b, groups).to(work), reach)
    height, width = a.shape[-2:]
    weights = grad.reshape(a.shape[0], groups, -1, height, width).to(work)
    grad_left, grad_right = torch.zeros_like(left), torch.zeros_like(right)
    if normalize:
        pull = _NormGradients(left, right)
    for lag, y, x in _windows(radius, dilation):
        place = (..., slice(y, y + height), slice(x, x + width))
        if normalize:
            weight = pull.add(weights[:, :, lag], left, right[place], place)
        else:
            weight = weights[:, :, lag] / left.shape[2]
        spread = weight.unsqueeze(2)
        grad_left.addcmul_(spread, right[place])
        grad_right[place].addcmul_(spread, left)
    if normalize:
        grad_left -= pull.of_left.unsqueeze(2) * left
        grad_right -= pull.of_right.unsqueeze(2) * right
    inner = (..., slice(reach, reach + height), slice(reach, reach + width))
    # contiguous(): a returned gradient must not be a view with the border's strides.
    return (
        grad_left.reshape(a.shape).to(a.dtype),
        grad_right[inner].reshape(a.shape).to(a.dtype).contiguous(),
    )


@_backward.register_fake
def _(
    grad: Tensor,
    a: Tensor,
    b: Tensor,
    radius: int,
    dilation: int,
    groups: int,
    normalize: bool,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(a, memory_format=torch.contiguous_format), torch.empty_like(
        b, memory_format=torch.contiguous_format
    )


class _NormGradients:
    """What the norms in the cosine's divisor give back, summed over the lags.

    With s = <u, v> / (|u| |v|) the gradient of s by u is v / (|u| |v|) - s u / |u|^2, and the
    same with u and v exchanged. Where the product of norms is below EPS the divisor is constant
    and the second summand vanishes.

    Attributes:
        of_left: (N, G, H, W), the sum of grad * s / |u|^2 at each place of the left map.
        of_right: The same at each place of the padded right map.
    """

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self._left, self._right = _norm(left), _norm(right)
        self.of_left, self.of_right = torch.zeros_like(self._left), torch.zeros_like(self._right)

    def add(self, grad: Tensor, left: Tensor, seen: Tensor, place: Any) -> Tensor:  # noqa: ANN401
        """Adds one lag and returns its weight: the gradient over the divisor."""
        left_norm, right_norm = self._left, self._right[place]
        product = left_norm * right_norm
        weight = grad / product.clamp_min(EPS)
        pulled = torch.where(product > EPS, weight * (left * seen).sum(2), 0)
        self.of_left += pulled / (left_norm * left_norm).clamp_min(_TINY)
        self.of_right[place] += pulled / (right_norm * right_norm).clamp_min(_TINY)
        return weight


_TINY = 1e-37  # keeps 0 / 0 out of places that contribute nothing


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401
    a, b, *options = inputs
    ctx.save_for_backward(a, b)
    ctx.options = options


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    a, b = ctx.saved_tensors
    grads = torch.ops.cclseg.local_correlation_backward(grad, a, b, *ctx.options)
    return (*grads, None, None, None, None)


_correlate.register_autograd(_differentiate, setup_context=_keep_inputs)
for _device in ("cpu", "cuda"):
    _correlate.register_autocast(_device, torch.float32)


def _windows(radius: int, dilation: int) -> Iterator[_Window]:
    """Yields each lag with the place of its window in the padded map, row by row."""
    side = 2 * radius + 1
    for lag in range(side * side):
        y, x = divmod(lag, side)
        yield lag, y * dilation, x * dilation


def _work_dtype(a: Tensor) -> torch.dtype:
    """Half precision is summed in float32."""
    return torch.float64 if a.dtype == torch.float64 else torch.float32


def _grouped(maps: Tensor, groups: int) -> Tensor:
    n, c, h, w = maps.shape
    return maps.reshape(n, groups, c // groups, h, w)


def _padded(maps: Tensor, reach: int) -> Tensor:
    return F.pad(maps, [reach] * 4) if reach else maps


def _norm(maps: Tensor) -> Tensor:
    """L2 norm over the channels of a group: (N, G, D, H, W) -> (N, G, H, W)."""
    norm: Tensor = torch.linalg.vector_norm(maps, dim=2)
    return norm
