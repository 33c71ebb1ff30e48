"""The kernels of localcorr (0.1.1) on a GPU, to stand beside ours: one in Triton, one in CUDA.

Both sum over the channels where our definition takes the mean, in the same order of lags. The CUDA
kernel wants the channels last and a grid of coordinates, which localcorr prepares in further
kernels at each call; here they are prepared once, so that kernel is compared with kernel. Its
library is compiled without TensorRT, which its own build asks for: the launcher needs none of it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Maps = NDArray[Any]

_SOURCE = Path("cuda_pyramid", "localcorr_cuda_pyramid_kernel.cu")
_LAUNCHER = "launchLocalCorrCudaPyramidForward"
_WARM_UP = 20
# Results are rounded to 24 or 11 bits before we divide; values are around 1, sums around 8.
_TOLERANCES = {"float32": 1e-5, "float16": 2**-7}


def missing() -> str | None:
    """Says what keeps the kernels from being timed here; None where nothing does."""
    for name in ("torch", "triton", "localcorr"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed; run: pip install localcorr"
    import torch

    return None if torch.cuda.is_available() else "torch finds no CUDA device"


def compile_cuda(nvcc: str, folder: Path) -> ctypes.CDLL:
    """Compiles localcorr's CUDA kernel for this machine's GPU; takes several minutes."""
    spec = importlib.util.find_spec("localcorr")
    if spec is None or spec.origin is None:
        raise ImportError("localcorr is not installed; run: pip install localcorr")
    library = folder / "localcorr_cuda.so"
    subprocess.run(
        [nvcc, "-std=c++17", "-O3", "-arch=native", "-shared", "-cudart=static",
         f"-L{Path(nvcc).parent.parent / 'lib'}", "-Xcompiler=-fPIC",
         Path(spec.origin).parent / _SOURCE, "-o", library],
        check=True,
    )  # fmt: skip
    loaded = ctypes.CDLL(str(library))
    launcher = getattr(loaded, _LAUNCHER)
    launcher.restype = ctypes.c_bool
    launcher.argtypes = (
        [ctypes.c_void_p] * 4 + [ctypes.c_int] * 7 + [ctypes.c_bool] * 2 + [ctypes.c_void_p]
    )
    return loaded


def time_kernels(
    cuda: ctypes.CDLL, a: Maps, b: Maps, expected: Maps, *, radius: int, samples: int
) -> dict[str, list[float]]:
    """Times both kernels on the same maps, after a look at their results.

    Args:
        cuda: Of :func:`compile_cuda`.
        a: (N, C, H, W) float32 or float16.
        b: As ``a``.
        expected: (N, (2 radius + 1)^2, H, W), our result for these maps.
        radius: Window radius.
        samples: How many times each kernel is timed.

    Returns:
        Microseconds of each sample, by kernel. Each sample replays a CUDA graph, so that no
        launch from Python counts.
    """
    import torch
    from localcorr import get_localcorr_sampler

    left, right = (torch.from_numpy(maps).cuda() for maps in (a, b))
    sampler = get_localcorr_sampler(patch_size=2 * radius + 1, corr_mode="localcorr_triton")
    calls: dict[str, Callable[[], Any]] = {
        "triton": lambda: sampler(left, right),
        "cuda": _prepared(cuda, left, right, radius),
    }
    times = {}
    for name, call in calls.items():
        out, times[name] = _replayed(call, samples)
        mean = (out.float() / a.shape[1]).reshape(expected.shape).cpu().numpy()
        np.testing.assert_allclose(
            mean, expected.astype(np.float32), rtol=0, atol=_TOLERANCES[a.dtype.name],
            err_msg=f"localcorr's {name} kernel computes something else",
        )  # fmt: skip
    return times


def _prepared(cuda: ctypes.CDLL, left: Any, right: Any, radius: int) -> Callable[[], Any]:  # noqa: ANN401
    """Returns a call of the CUDA kernel alone, on maps that are laid out as it wants them."""
    import torch

    n, channels, height, width = left.shape
    first, second = (maps.permute(0, 2, 3, 1).contiguous() for maps in (left, right))
    rows = torch.arange(height, device=left.device, dtype=left.dtype)
    columns = torch.arange(width, device=left.device, dtype=left.dtype)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    places = torch.stack([x, y]).repeat(n, 1, 1, 1).contiguous()  # (N, 2, H, W), x first
    out = left.new_empty(n, 1, (2 * radius + 1) ** 2, height, width)
    pointers = [tensor.data_ptr() for tensor in (first, second, places, out)]
    levels, dilation, is_half, rows_first = 1, 1, left.dtype == torch.float16, True
    # The launch holds addresses alone: these names keep the memory behind them.
    owned = (first, second, places, out)

    def call() -> Any:  # noqa: ANN401 - a tensor
        stream = torch.cuda.current_stream().cuda_stream
        done = getattr(cuda, _LAUNCHER)(
            *pointers, n, height, width, channels, radius, levels, dilation, is_half, rows_first,
            stream,
        )  # fmt: skip
        if not done:
            raise RuntimeError(f"localcorr's CUDA kernel refused {tuple(left.shape)}, R{radius}")
        return owned[-1]

    return call


def _replayed(call: Callable[[], Any], samples: int) -> tuple[Any, list[float]]:
    import torch

    with torch.no_grad():
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):  # compiles, before a graph is captured
            call()
        side.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = call()
    times = []
    for sample in range(-_WARM_UP, samples):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        if sample >= 0:
            times.append(1e3 * begin.elapsed_time(end))
    return out, times
