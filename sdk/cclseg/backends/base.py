"""The contract of a backend: one loaded network that turns tiles into logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..frame import FloatArray
    from ..spec import ModelSpec


class Backend(ABC):
    """One loaded network on one library and device.

    A subclass loads the network in ``__init__`` (raising :class:`~cclseg.errors.BackendError`
    with the file's name when it cannot) and implements :meth:`_infer`. An instance is not shared
    between threads without a lock of the caller's.

    Attributes:
        name: Short name of the library ("onnxruntime", "openvino", "torch").
        device: Where the network runs ("cpu").
        spec: What the network says of itself.
    """

    name: str
    device: str = "cpu"

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def infer(self, images: FloatArray) -> FloatArray:
        """Runs the network and waits for its result.

        Args:
            images: (N, C, H, W) float32, normalised, C-contiguous; (H, W) is ``spec.input_hw``.

        Returns:
            (N, K, H / output_stride, W / output_stride) float32 logits: a view that may be
            overwritten by the next call.

        Raises:
            InputError: The shape is not what the network takes.
            BackendError: The library failed.
        """
        expected = (len(self.spec.bands), *self.spec.input_hw)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise InputError(
                f"the network '{self.spec.name}' got {images.shape}; expected (N, "
                f"{', '.join(map(str, expected))}); let Segmenter cut the tiles"
            )
        return self._infer(images)

    @abstractmethod
    def _infer(self, images: FloatArray) -> FloatArray:
        """Runs the network on checked input."""

    def close(self) -> None:  # noqa: B027 - most libraries free everything with the object
        """Frees what the library holds. May be called twice."""

    def __enter__(self) -> Backend:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
