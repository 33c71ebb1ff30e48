"""Results whose masks, logits and confidence lie in the memory of a GPU."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .gpu.arrays import DeviceArray
from .gpu.image_kernels import ImageKernels, ImageLaunch, ResultType, plan_result
from .result import Segmentation

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .frame import FloatArray, Mask
    from .gpu.device import Device
    from .spec import ModelSpec

SIZES_KEPT = 4  # sizes of frames for which memory stays, so that streams may take turns


class DeviceSegmentation(Segmentation):
    """A result whose mask lies on the host and on the GPU.

    Logits and confidence are computed or fetched from the GPU on first use, as long as its
    segmenter is open.

    Attributes:
        device_mask: The mask in device memory, for other libraries.
    """

    __slots__ = ()

    def __init__(
        self,
        mask: Mask,
        spec: ModelSpec,
        *,
        device_mask: DeviceArray,
        logits: Callable[[], FloatArray],
        confidence: Callable[[], FloatArray],
        timing: dict[str, float],
    ) -> None:
        super().__init__(mask, logits, spec, timing=timing, confidence=confidence)
        self.device_mask = device_mask


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the memory of a result depends on.

    Attributes:
        canvas: (K, h, w) of the logits.
        mask: (H, W) of the frame.
    """

    canvas: tuple[int, int, int]
    mask: tuple[int, int]


@dataclass(slots=True)
class ResultMemory:
    """The addresses of one result's logits, mask and confidence."""

    sizes: Sizes
    canvas: int
    mask: int
    confidence: int


class Loan:
    """Keeps the memory of a result from being used again while something refers to it."""

    def __init__(self, memory: ResultMemory) -> None:
        self.memory = memory


class Results:
    """The memory of results on the device: used again once nobody refers to a result."""

    def __init__(self, device: Device, kernels: ImageKernels, spec: ModelSpec) -> None:
        self.mask_type: ResultType = "uint8" if spec.num_classes <= 255 else "uint16"
        self._device, self._kernels, self._spec = device, kernels, spec
        self._idle: dict[Sizes, list[ResultMemory]] = {}
        self._given_back: deque[ResultMemory] = deque()
        self._reading, self._alone = device.stream(), threading.Lock()

    def lend(self, sizes: Sizes) -> Loan:
        """Returns memory for a result; for a size that is new it is allocated."""
        while self._given_back:
            memory = self._given_back.popleft()
            if memory.sizes in self._idle:
                self._idle[memory.sizes].append(memory)
            else:
                self._free(memory)
        if sizes not in self._idle and len(self._idle) == SIZES_KEPT:
            for memory in self._idle.pop(next(iter(self._idle))):
                self._free(memory)
        idle = self._idle.setdefault(sizes, [])
        memory = idle.pop() if idle else self._allocated(sizes)
        loan = Loan(memory)
        # Without a call of the driver: the garbage collector runs in any thread.
        weakref.finalize(loan, self._given_back.append, memory).atexit = False
        return loan

    def _free(self, memory: ResultMemory) -> None:
        for address in (memory.canvas, memory.mask, memory.confidence):
            self._device.free(address)

    def _allocated(self, sizes: Sizes) -> ResultMemory:
        pixels = int(np.prod(sizes.mask))
        return ResultMemory(
            sizes,
            canvas=self._device.allocate(4 * int(np.prod(sizes.canvas))),
            mask=self._device.allocate(pixels * np.dtype(self.mask_type).itemsize),
            confidence=self._device.allocate(4 * pixels),
        )

    def segmentation(
        self, mask: NDArray[Any], loan: Loan, *, timing: dict[str, float]
    ) -> DeviceSegmentation:
        """Returns a result whose parts on the device live as long as it."""
        on_device = DeviceArray(
            loan.memory.mask, mask.shape, mask.dtype, device=self._device, owner=loan
        )

        def logits() -> FloatArray:
            return self._fetched(loan.memory.canvas, loan.memory.sizes.canvas)

        def confidence() -> FloatArray:
            with self._alone, self._device.opened():
                self._kernels.queue(
                    self.plan(loan.memory, loan.memory.confidence, "float32"),
                    stream=self._reading.handle,
                )
            return self._fetched(loan.memory.confidence, loan.memory.sizes.mask)

        return DeviceSegmentation(
            mask, self._spec, device_mask=on_device, logits=logits, confidence=confidence,
            timing=timing,
        )  # fmt: skip

    def plan(self, memory: ResultMemory, target: int, dtype: ResultType) -> ImageLaunch:
        """Plans classes or confidence of a result."""
        return plan_result(
            memory.canvas, memory.sizes.canvas, target, memory.sizes.mask,
            stride=self._spec.output_stride, dtype=dtype,
        )  # fmt: skip

    def _fetched(self, address: int, shape: tuple[int, ...]) -> FloatArray:
        values = np.empty(shape, np.float32)
        with self._alone, self._device.opened():
            self._reading.download(address, values)
            self._reading.synchronize()
        return values
