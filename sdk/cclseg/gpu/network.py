"""What a network on a GPU offers to those who bring its input there and leave its output there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .device import Device, Stream


class DeviceSet(Protocol):
    """Memory and a stream in which a network computes on a GPU."""

    @property
    def stream(self) -> Stream:
        """In which it computes."""

    @property
    def source(self) -> int:
        """Address of the tiles, (N, C, H, W) float32."""

    @property
    def target(self) -> int:
        """Address of the logits, (N, K, h, w) float32."""

    def infer(self, count: int) -> None:
        """Queues the inference of so many tiles."""

    def settle(self) -> None:
        """Waits for what another caller has on its way in this set."""


class DeviceNetwork(Protocol):
    """A network on a GPU, for those that bring its input there and leave its output there."""

    @property
    def device(self) -> Device:
        """Where it computes."""

    @property
    def sets(self) -> Sequence[DeviceSet]:
        """Independent of one another."""

    @property
    def tiles_per_call(self) -> int:
        """The most tiles that one inference takes."""
