"""Results into a function of the caller's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .base import Sink

if TYPE_CHECKING:
    from ..frame import Frame
    from ..result import Segmentation


class CallSink(Sink):
    """Calls a function with every result, in the order of the frames.

    Its exceptions end the job, except that an :class:`~cclseg.errors.InputError` counts as the
    failure of one frame.

    Example:
        >>> with open_sink(lambda out: print(out.fractions())) as sink:  # doctest: +SKIP
        ...     sink.write(out.frame, out)
    """

    def __init__(self, call: Callable[[Segmentation], object]) -> None:
        self.target = Path(getattr(call, "__name__", type(call).__name__))
        self._call = call

    def write(self, frame: Frame, result: Segmentation) -> None:
        """Calls the function; the result's ``frame`` is the frame."""
        result.frame = frame
        self._call(result)
