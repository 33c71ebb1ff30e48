"""The parts of an aircraft that send, and what became of their packets."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .clock import BootClock

if TYPE_CHECKING:
    from .packets import Packet

_REMEMBERED_PACKETS = 64


@dataclass(slots=True)
class Counts:
    """What became of the packets of a link.

    Attributes:
        foreign: From other aircraft, or from before the first heartbeat of an autopilot.
        lost: Missing between two packets of one sender.
        repeated: Here before, by their number and checksum.
        out_of_order: Older than one that was here already; they count all the same.
        unknowing: The sender does not know the values, or they cannot be.
        untimely: Far too late, replayed, or with a damaged time.
        restarts: Times that a sender was switched on anew.
        signed: With a signature, which is not checked.
    """

    foreign: int = 0
    lost: int = 0
    repeated: int = 0
    out_of_order: int = 0
    unknowing: int = 0
    untimely: int = 0
    restarts: int = 0
    signed: int = 0


@dataclass(slots=True)
class Sender:
    """One part of an aircraft, with a clock and a count of packets of its own.

    Attributes:
        clock: What it calls the time.
        last: Number of its newest packet.
        recent: Number and checksum of its last packets.
    """

    clock: BootClock = field(default_factory=BootClock)
    last: int | None = None
    recent: deque[tuple[int, int]] = field(
        default_factory=lambda: deque(maxlen=_REMEMBERED_PACKETS)
    )

    def count(self, packet: Packet, counts: Counts) -> bool:
        """Counts a packet, and those that were lost before it; False where it was here before."""
        key = packet.sequence, packet.checksum
        if key in self.recent:
            counts.repeated += 1
            return False
        self.recent.append(key)
        ahead = 1 if self.last is None else (packet.sequence - self.last) % 256
        if ahead >= 128:
            counts.out_of_order += 1
        else:
            counts.lost += max(0, ahead - 1)
            self.last = packet.sequence
        return True
