"""Packs the tiles of frames into the calls of a network, whatever frame they are of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from .backends.base import logits_hw
from .handover import Channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from .frame import FloatArray, Frame
    from .spec import ModelSpec
    from .tiled import Assembly

# One set of tiles is computed while the next is cut; a third evens out frames that take longer.
_BUFFERS = 3


@dataclass(frozen=True, slots=True)
class Network:
    """A network that several threads and streams may share.

    Attributes:
        spec: What it takes and gives.
        infer: Takes tiles (N, C, H, W) float32 and writes their logits into (N, K, h, w) float32;
            may be called by any thread.
        tiles_per_call: Number of tiles at which it runs fastest.
    """

    spec: ModelSpec
    infer: Callable[[FloatArray, FloatArray], None]
    tiles_per_call: int


@dataclass(frozen=True, slots=True)
class End:
    """Stands in a queue behind the last item of a feed.

    Attributes:
        feed: Number of the feed.
        failure: What ended it, None for its natural end.
    """

    feed: int
    failure: BaseException | None = None


@dataclass(slots=True)
class Job:
    """A frame between its preparation and its result.

    Attributes:
        feed: Number of the feed that it came from.
        frame: The frame.
        assembly: Where its logits are put together.
        to_infer: Number of its tiles that have not been through the network.
    """

    feed: int
    frame: Frame
    assembly: Assembly
    to_infer: int


Places: TypeAlias = "list[tuple[Job, int]]"
"""Which tile of which frame each one of a group is."""

Computed: TypeAlias = "tuple[Places, FloatArray] | End"
"""A buffer of logits, (N, K, h, w), with what the first of them are of."""


@dataclass(slots=True)
class Group:
    """Tiles for one call of the network; the buffer goes back to the packer afterwards."""

    buffer: FloatArray
    places: Places = field(default_factory=list)

    @property
    def tiles(self) -> FloatArray:
        """(N, C, H, W) float32: a view of those tiles that are filled."""
        return self.buffer[: len(self.places)]


def logits_buffer(spec: ModelSpec, tiles: int) -> FloatArray:
    """Returns room for the logits of some tiles, (tiles, K, h, w) float32."""
    return np.empty((tiles, spec.num_classes, *logits_hw(spec)), np.float32)


class Packer:
    """Fills groups tile by tile and passes each on when it is full.

    Attributes:
        groups: Where full groups go; ends of feeds travel between them.
    """

    def __init__(self, network: Network, *, feeds: int) -> None:
        spec = network.spec
        self.groups = Channel[Group | End](_BUFFERS + feeds)
        self._buffers = Channel["FloatArray"](_BUFFERS)
        for _ in range(_BUFFERS):
            shape = (network.tiles_per_call, len(spec.bands), *spec.input_hw)
            self._buffers.put(np.empty(shape, np.float32))
        self._group: Group | None = None

    def next_tile(self, job: Job, place: int) -> FloatArray | None:
        """Waits for room and returns (C, H, W) float32 to write one tile of a frame into.

        Returns:
            A view, to be filled before the next call; None once the packer is closed.
        """
        if self._group is not None and len(self._group.places) == len(self._group.buffer):
            self.flush()
        if self._group is None:
            buffers = self._buffers.take()
            if not buffers:
                return None
            self._group = Group(buffers[0])
        self._group.places.append((job, place))
        tile: FloatArray = self._group.buffer[len(self._group.places) - 1]
        return tile

    def flush(self) -> None:
        """Passes on what has been filled."""
        if self._group is not None:
            self.groups.put(self._group)
            self._group = None

    def end(self, end: End) -> None:
        """Passes on the end of a feed, behind its tiles."""
        self.flush()
        self.groups.put(end)

    def give_back(self, buffer: FloatArray) -> None:
        """Takes the buffer of a computed group; another thread may call it."""
        self._buffers.put(buffer)

    def close(self) -> None:
        """Ends everyone who waits for room or for a group."""
        for channel in (self.groups, self._buffers):
            channel.close(drop=True)
