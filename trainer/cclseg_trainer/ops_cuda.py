"""The fused local correlation on CUDA tensors: the forward pass of the torch operator on a GPU."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from cclseg.correlation_cuda import Correlation, CudaCorrelation, MapType
from cclseg.errors import InputError

_TYPES: dict[torch.dtype, MapType] = {torch.float32: "float32", torch.float16: "float16"}


def check_maps(a: Tensor, b: Tensor) -> None:
    """Refuses maps that are no pair for a correlation, on whatever device.

    Raises:
        InputError: They are not (N, C, H, W), or differ in shape, type or device.
    """
    alike = a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
    if a.ndim != 4 or not alike or not a.is_floating_point():
        raise InputError(
            f"got maps {tuple(a.shape)} of {a.dtype} on {a.device} and {tuple(b.shape)} of "
            f"{b.dtype} on {b.device}; expected one shape (N, C, H, W), one floating type and one "
            "device"
        )


def takes(a: Tensor) -> bool:
    """Says whether the fused kernel computes maps like ``a``: on a GPU, in fp32 or fp16."""
    return a.is_cuda and a.dtype in _TYPES and a.numel() > 0


def correlate(
    a: Tensor, b: Tensor, *, radius: int, dilation: int, groups: int, normalize: bool
) -> Tensor:
    """Queues the correlation on the current stream of the maps' device.

    The kernels are compiled on the first call for each device, which takes some seconds.

    Args:
        a: (N, C, H, W), a map that the kernel :func:`takes`.
        b: As ``a``.
        radius: Window radius R >= 0.
        dilation: Step between places of the window, in pixels.
        groups: Number of channel groups; divides C.
        normalize: Cosine similarity instead of the mean of products.

    Returns:
        (N, groups * (2R + 1)^2, H, W), the type of ``a``.

    Raises:
        InputError: The kernel does not take the maps, they differ, or an option does not fit.
        MissingDependencyError: NVRTC is not installed.
        CudaError: The driver refused the launch.
    """
    check_maps(a, b)
    if not takes(a):
        raise InputError(
            f"got maps {tuple(a.shape)} of {a.dtype} on {a.device}; the fused kernel expects "
            "float32 or float16 on a CUDA device: call cclseg_trainer.ops.local_correlation, "
            "which takes any"
        )
    n, channels, height, width = a.shape
    what = Correlation(
        (n, channels, height, width),
        radius=radius,
        dilation=dilation,
        groups=groups,
        normalize=normalize,
        map_type=_TYPES[a.dtype],
        out_type=_TYPES[a.dtype],
    )
    out = a.new_empty(what.out_shape)
    _queue(what, a.contiguous(), b.contiguous(), out)
    return out


def _queue(what: Correlation, a: Tensor, b: Tensor, out: Tensor) -> None:
    with torch.cuda.device(a.device):
        pointers = (a.data_ptr(), b.data_ptr(), out.data_ptr())
        stream: int = torch.cuda.current_stream().cuda_stream
        _kernels(a.device).launch(what, pointers, stream=stream)


@cache
def _kernels(device: torch.device) -> CudaCorrelation:
    """Compiles for a device, whose context is current; kept until the process ends."""
    return CudaCorrelation()
