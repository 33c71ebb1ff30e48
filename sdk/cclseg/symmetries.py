"""Test-time augmentation: a network averaged over flips and quarter turns of its tiles.

A nadir image has no up: whether the camera flew north or east, the ground is the same. A network
learns that only roughly. Here it sees every tile in the positions of a symmetry group, what it says
is turned back, and the mean is taken: the result is better, more honest about its confidence, and
turns with the image.

* ``flips``: as it is, mirrored along either axis, and along both (a half turn); four times the
  work.
* ``d4``: all eight symmetries of the square, the dihedral group of order 8, so quarter turns too;
  eight times the work, on square tiles.

What is averaged are logits (the geometric mean of probabilities), in float64, where the order of
eight float32 summands makes no difference.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np

from .backends.base import Backend
from .backends.choose import open_backend
from .errors import InputError
from .suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .frame import FloatArray
    from .spec import ModelSpec

    Place: TypeAlias = "tuple[int, Symmetry]"  # which tile, in which position
    Started: TypeAlias = "list[tuple[list[Place], Callable[[], FloatArray]]]"

_log = logging.getLogger(__name__)

Tta: TypeAlias = Literal["none", "flips", "d4"]
"""Over which symmetries a network is averaged; "none" leaves it as it is."""


@dataclass(frozen=True, slots=True)
class Symmetry:
    """A mirroring, where there is one, and then quarter turns.

    Attributes:
        quarter_turns: Counter-clockwise, in 0..3.
        mirrored: Whether left and right are exchanged first.

    Example:
        >>> turned = Symmetry(quarter_turns=1).applied(np.array([[1, 2], [3, 4]]))
        >>> turned.tolist()
        [[2, 4], [1, 3]]
    """

    quarter_turns: int = 0
    mirrored: bool = False

    def applied(self, maps: FloatArray) -> FloatArray:
        """Returns maps (..., H, W) in this position, as a view."""
        return np.rot90(maps[..., ::-1] if self.mirrored else maps, self.quarter_turns, (-2, -1))

    def undone(self, maps: FloatArray) -> FloatArray:
        """Returns maps (..., H, W) in this position as they were before, as a view."""
        upright = np.rot90(maps, -self.quarter_turns, (-2, -1))
        return upright[..., ::-1] if self.mirrored else upright


SYMMETRIES: dict[Tta, tuple[Symmetry, ...]] = {
    "none": (Symmetry(),),
    "flips": tuple(Symmetry(turns, mirrored) for mirrored in (False, True) for turns in (0, 2)),
    "d4": tuple(Symmetry(turns, mirrored) for mirrored in (False, True) for turns in range(4)),
}
"""The groups: each holds with two symmetries what they do one after the other."""


class SymmetricBackend(Backend):
    """A network averaged over symmetries; to its users one more backend.

    Tiles in all positions share the calls of the network, as many in each as it runs fastest.
    Frames are cut and blended by the processor, on whatever device the network runs.

    Args:
        network: The network, closed with this one.
        tta: Over which symmetries.

    Raises:
        InputError: Unknown symmetries, or quarter turns of tiles that are not square.

    Example:
        >>> averaged = SymmetricBackend(open_backend(path), "flips")  # doctest: +SKIP
        >>> with Segmenter.from_backend(averaged) as segment:  # doctest: +SKIP
        ...     out = segment(frame)
    """

    name = "symmetric"
    suffixes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, network: Backend, tta: Tta = "d4") -> None:
        super().__init__(network.spec)
        _check(tta, network.spec)
        if network.on_gpu is not None:
            _log.warning("tta='%s' prepares frames on the processor, not the GPU", tta)
        self.name = network.name
        self.device = network.device
        self.calls_in_flight = network.calls_in_flight
        self._network = network
        self._symmetries = SYMMETRIES[tta]
        self.tiles_per_call = max(1, network.tiles_per_call // len(self._symmetries))
        shape = (network.tiles_per_call, len(self.spec.bands), *self.spec.input_hw)
        self._turned: FloatArray = np.empty(shape, np.float32)

    @classmethod
    def open(
        cls, path: Path, *, spec: ModelSpec | None = None, threads: int | None = None
    ) -> SymmetricBackend:
        """Loads a network on the fastest backend and averages it over all eight symmetries."""
        return cls(open_backend(path, spec=spec, threads=threads))

    def close(self) -> None:
        """Frees the network. May be called twice."""
        self._network.close()

    def _infer(self, images: FloatArray) -> FloatArray:
        return self._submit(images)()

    def _submit(self, images: FloatArray) -> Callable[[], FloatArray]:
        places = [(index, turn) for turn in self._symmetries for index in range(len(images))]
        started: Started = []
        for first in range(0, len(places), len(self._turned)):
            some = places[first : first + len(self._turned)]
            tiles = self._turned[: len(some)]
            for tile, (index, symmetry) in zip(tiles, some, strict=True):
                tile[:] = symmetry.applied(images[index])
            started.append((some, self._network.submit(tiles)))
        count = len(images)
        return lambda: self._averaged(started, count)

    def _averaged(self, started: Started, count: int) -> FloatArray:
        """Waits for the logits of all positions and returns the mean of each tile."""
        sums = [np.zeros((), np.float64)] * count
        for places, collect in started:
            for logits, (index, symmetry) in zip(collect(), places, strict=True):
                sums[index] = sums[index] + symmetry.undone(logits)
        return (np.stack(sums) / len(self._symmetries)).astype(np.float32)


def averaged(network: Backend, tta: Tta) -> Backend:
    """Returns a network averaged over symmetries, or itself for "none".

    Raises:
        InputError: As :class:`SymmetricBackend` says.
    """
    return network if tta == "none" else SymmetricBackend(network, tta)


def _check(tta: Tta, spec: ModelSpec) -> None:
    """Refuses what is unknown, and quarter turns of tiles that do not fit into their place then."""
    if tta not in SYMMETRIES:
        raise InputError(f"there is no tta='{tta}'; {did_you_mean(tta, SYMMETRIES)}")
    height, width = spec.input_hw
    if height != width and any(symmetry.quarter_turns % 2 for symmetry in SYMMETRIES[tta]):
        raise InputError(
            f"tta='{tta}' makes quarter turns, and the network '{spec.name}' takes tiles of "
            f"{height} x {width}; use tta='flips', or square tiles (tile={min(height, width)}) if "
            "its input size is open"
        )
