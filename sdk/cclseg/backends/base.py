"""The contract of a backend: one loaded network that turns tiles into logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..closing import Closing
from ..errors import BackendError, InputError, SpecError
from ..machine import read_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..frame import FloatArray
    from ..gpu.network import DeviceNetwork
    from ..onnx_file import TensorInfo
    from ..spec import ModelSpec


class Backend(Closing, ABC):
    """One loaded network on one library and device.

    A subclass implements :meth:`open` and :meth:`_infer`. A package adds a backend by naming its
    class in the entry-point group ``cclseg.backends``; the import of its module must raise
    :class:`~cclseg.errors.MissingDependencyError` when the library is not installed. An instance
    is not shared between threads without a lock of the caller's.

    Attributes:
        name: Short name of the library ("onnxruntime", "openvino", "torch").
        suffixes: Endings of the files it loads (".onnx").
        device: Where the network runs ("cpu").
        tiles_per_call: Number of tiles in one :meth:`infer` at which the library runs fastest.
        calls_in_flight: Number of :meth:`submit` whose work overlaps.
        on_gpu: The network as :class:`~cclseg.device_frames.DeviceFrames` drives it without the
            host in between, None where it cannot be.
        spec: What the network says of itself.
    """

    name: str
    suffixes: ClassVar[tuple[str, ...]]
    device: str = "cpu"
    tiles_per_call: int = 1
    calls_in_flight: int = 1
    on_gpu: DeviceNetwork | None = None

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    @classmethod
    @abstractmethod
    def open(
        cls, path: Path, *, spec: ModelSpec | None = None, threads: int | None = None
    ) -> Backend:
        """Loads a network.

        Args:
            path: The model file.
            spec: Used instead of what the file says of itself where given.
            threads: Threads that one inference may use, None for all processors of this process.

        Raises:
            BackendError: The file is damaged, or the library cannot run it.
            SpecError: The file does not describe itself, or the spec contradicts the network.
        """

    def infer(self, images: FloatArray) -> FloatArray:
        """Runs the network and waits for its result.

        Args:
            images: (N, C, H, W) float32, normalised, C-contiguous; (H, W) is ``spec.input_hw``.

        Returns:
            (N, K, H / output_stride, W / output_stride) float32 logits: a view that may be
            overwritten by the next call.

        Raises:
            InputError: The shape is not what the network takes.
            SpecError: The shape of the logits is not what the spec promises.
            BackendError: The library failed.
        """
        self._check_images(images)
        return self._checked(self._infer(images), len(images))

    def submit(self, images: FloatArray) -> Callable[[], FloatArray]:
        """Starts the network on images, which may be reused at once.

        Up to :attr:`calls_in_flight` calls run side by side where the library can; a further one
        waits for the first.

        Args:
            images: As in :meth:`infer`.

        Returns:
            A function that waits for the logits and returns them, the caller's own. It raises what
            :meth:`infer` does.

        Raises:
            InputError: The shape is not what the network takes.
            BackendError: The library failed.
        """
        self._check_images(images)
        collect, count = self._submit(images), len(images)
        return lambda: self._checked(collect(), count)

    def _check_images(self, images: FloatArray) -> None:
        spec = self.spec
        expected = (len(spec.bands), *spec.input_hw)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise InputError(
                f"the network '{spec.name}' got {images.shape}; expected (N, "
                f"{', '.join(map(str, expected))}); let Segmenter cut the tiles"
            )

    def _checked(self, logits: FloatArray, count: int) -> FloatArray:
        spec = self.spec
        promised = (count, spec.num_classes, *logits_hw(spec))
        if logits.shape != promised:
            raise SpecError(
                f"the network '{spec.name}' gives {logits.shape}, its spec promises {promised} "
                f"({spec.num_classes} classes, output stride {spec.output_stride}); correct it"
            )
        return logits

    def _submit(self, images: FloatArray) -> Callable[[], FloatArray]:
        """Starts the network on checked input; a library that cannot runs it at once."""
        logits = np.array(self._infer(images))
        return lambda: logits

    @abstractmethod
    def _infer(self, images: FloatArray) -> FloatArray:
        """Runs the network on checked input."""


def logits_hw(spec: ModelSpec) -> tuple[int, int]:
    """Returns height and width of the logits of one tile."""
    return spec.input_hw[0] // spec.output_stride, spec.input_hw[1] // spec.output_stride


def usable_threads(threads: int | None) -> int:
    """Returns the number of threads asked for, or that of the processors of this process.

    Raises:
        InputError: Fewer than one.
    """
    if threads is None:
        return read_machine().cores
    if threads < 1:
        raise InputError(f"threads={threads}; expected 1 or more, or None for all processors")
    return threads


def check_interface(
    path: Path, spec: ModelSpec, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
) -> TensorInfo:
    """Checks that a network takes one batch of images and gives logits, as its spec says.

    Args:
        path: The model file, for messages.
        spec: What the network should be.
        inputs: The inputs that it has.
        outputs: The outputs that it has.

    Returns:
        The output that holds the logits: the one named "logits", or the only one.

    Raises:
        BackendError: The network has another kind of inputs or outputs.
        SpecError: Its fixed shapes contradict the spec.
    """
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].dtype != "float32":
        raise BackendError(
            f"{path} takes {_listed(inputs)}; expected one input (N, C, H, W) float32"
        )
    named = [info for info in outputs if info.name == "logits"] or list(outputs)
    if len(named) != 1 or len(named[0].shape) != 4 or named[0].dtype != "float32":
        raise BackendError(
            f"{path} gives {_listed(outputs)}; expected one output (N, K, h, w) float32 of logits, "
            "or one of them named 'logits'"
        )
    fits = (
        ("takes", inputs[0], (None, len(spec.bands), *spec.input_hw)),
        ("gives", named[0], (None, spec.num_classes, *logits_hw(spec))),
    )
    for verb, info, expected in fits:
        pairs = zip(info.shape, expected, strict=True)
        if any(None not in pair and pair[0] != pair[1] for pair in pairs):
            raise SpecError(
                f"{path} {verb} {info}; the spec says {expected} with {len(spec.bands)} bands, "
                f"{spec.num_classes} classes, input_hw={spec.input_hw}, output_stride="
                f"{spec.output_stride}; correct the spec (a fixed input size takes no other tile)"
            )
    return named[0]


def _listed(infos: Sequence[TensorInfo]) -> str:
    return "; ".join(map(str, infos)) or "nothing"
