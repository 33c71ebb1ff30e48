"""The fused local correlation on CUDA tensors: the forward pass of the torch operator on a GPU."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from cclseg.correlation_cuda import Correlation, CudaCorrelation, MapType
from cclseg.errors import InputError

_TYPES: dict[torch.dtype, MapType] = {torch.float32: "float32", torch.float16: "float16"}


def takes(a: Tensor) -> bool:
    """Says whether the fused kernel computes maps like ``a``: on a GPU, in fp32 or fp16."""
    return a.is_cuda and a.dtype in _TYPES and a.numel() > 0


def correlate(
    a: Tensor, b: Tensor, *, radius: int, dilation: int, groups: int, normalize: bool
) -> Tensor:
    """Queues the correlation on the current stream of the maps' device.

    The kernels are compiled on the first call for each device, which takes some seconds.

    Args:
        a: (N, C, H, W) float32 or float16 on a CUDA device.
        b: As ``a``.
        radius: Window radius R >= 0.
        dilation: Step between places of the window, in pixels.
        groups: Number of channel groups; divides C.
        normalize: Cosine similarity instead of the mean of products.

    Returns:
        (N, groups * (2R + 1)^2, H, W), the type of ``a``.

    Raises:
        InputError: The maps are not such tensors, or an option does not fit them.
        MissingDependencyError: NVRTC is not installed.
        CudaError: The driver refused the launch.
    """
    if not takes(a) or a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        raise InputError(
            f"got maps {tuple(a.shape)} of {a.dtype} on {a.device} and {tuple(b.shape)} of "
            f"{b.dtype} on {b.device}; expected two alike, float32 or float16, on a CUDA device"
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
    a, b = a.contiguous(), b.contiguous()
    with torch.cuda.device(a.device):
        out = torch.empty(what.out_shape, dtype=a.dtype, device=a.device)
        pointers = (a.data_ptr(), b.data_ptr(), out.data_ptr())
        stream: int = torch.cuda.current_stream().cuda_stream
        _kernels(a.device).launch(what, pointers, stream=stream)
    return out


@cache
def _kernels(device: torch.device) -> CudaCorrelation:
    """Compiles for a device, whose context is current; kept until the process ends."""
    return CudaCorrelation()
