"""Packs the tiles of frames into the calls of a network, whatever frame they are of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from .backends.base import logits_hw
from .handover import Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .frame import FloatArray, Frame, Image
    from .result import Segmentation
    from .spec import ModelSpec
    from .tiled import Assembly

# One set of tiles is computed while the next is cut; a third evens out frames that take longer.
_BUFFERS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A network that several threads and streams may share.

    Attributes:
        spec: What it takes and gives.
        submit: Starts it on tiles (N, C, H, W) float32, which may be reused at once, and returns
            what waits until their logits stand in the given (N, K, h, w) float32; any thread may
            call both.
        tiles_per_call: Number of tiles at which it runs fastest.
        calls_in_flight: Number of calls whose work overlaps.
        submit_frame: Starts it on a whole frame, where all the work is done on its device, and
            returns what waits for the result; None where tiles are cut and blended by the host.
    """

    spec: ModelSpec
    submit: Callable[[FloatArray, FloatArray], Callable[[], None]]
    tiles_per_call: int
    calls_in_flight: int = 1
    submit_frame: Callable[[Image], Callable[[], Segmentation]] | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """How much work a frame is given.

    Attributes:
        name: "full", "no-overlap", "scale-0.5" and so on; see :mod:`cclseg.levels`.
        network: What runs.
        overlap: Share of a tile that neighbouring tiles have in common.
        scale: Size of the frame that is computed over that of the frame, in (0, 1].
    """

    name: str
    network: Network = field(repr=False)
    overlap: float
    scale: float = 1.0

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.network.spec.name


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
        level: How it is computed.
        assembly: Where its logits are put together.
        to_infer: Number of its tiles that have not been through the network.
    """

    feed: int
    frame: Frame
    level: Level
    assembly: Assembly
    to_infer: int


Places: TypeAlias = "list[tuple[Job, int]]"
"""Which tile of which frame each one of a group is."""

Computed: TypeAlias = "tuple[Places, FloatArray] | End"
"""A buffer of logits, (N, K, h, w), with what the first of them are of."""


@dataclass(slots=True)
class Group:
    """Tiles for one call of a network; the buffer goes back to the packer afterwards."""

    network: Network
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
    """Fills groups tile by tile and passes each on when it is full, or for another network.

    Attributes:
        groups: Where full groups go; ends of feeds travel between them.
    """

    def __init__(self, networks: Iterable[Network], *, feeds: int) -> None:
        self._buffers = {network: Channel["FloatArray"](_BUFFERS) for network in networks}
        self.groups = Channel[Group | End](_BUFFERS * len(self._buffers) + feeds)
        for network, buffers in self._buffers.items():
            shape = (network.tiles_per_call, len(network.spec.bands), *network.spec.input_hw)
            for _ in range(_BUFFERS):
                buffers.put(np.empty(shape, np.float32))
        self._group: Group | None = None

    def next_tile(self, job: Job, place: int) -> FloatArray | None:
        """Waits for room and returns (C, H, W) float32 to write one tile of a frame into.

        Returns:
            A view, to be filled before the next call; None once the packer is closed.
        """
        network, group = job.level.network, self._group
        if group is not None and (
            group.network is not network or len(group.places) == len(group.buffer)
        ):
            self.flush()
        if self._group is None:
            buffers = self._buffers[network].take()
            if not buffers:
                return None
            self._group = Group(network, buffers[0])
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

    def give_back(self, group: Group) -> None:
        """Takes the buffer of a computed group; another thread may call it."""
        self._buffers[group.network].put(group.buffer)

    def close(self) -> None:
        """Ends everyone who waits for room or for a group."""
        self.groups.close(drop=True)
        for buffers in self._buffers.values():
            buffers.close(drop=True)
