"""Telling another computer's clock from packets that take their time on the way."""

from __future__ import annotations

from collections import deque

_WINDOW_S = 30.0
_EARLY_S = 0.5
_LATE_S = 2.0
_BELIEVED_AFTER = 8


class BootClock:
    """The clock of a sender that counts from when it was switched on.

    A packet never arrives before it is sent, so the one that took the shortest way tells the offset
    between the two clocks best. The shortest of the last 30 seconds is taken, because quartz drifts
    by a millisecond in that time. What even that packet took on the way (a few milliseconds by
    cable or network, 20 to 100 by radio) cannot be seen from here and stays in.

    A time that does not fit is a replayed, a damaged or a very late packet; when eight in a row fit
    each other, the sender was switched on anew.

    Attributes:
        restarts: How often the sender was switched on anew.
    """

    def __init__(self) -> None:
        self.restarts = 0
        self._shortest: deque[tuple[float, float]] = deque()
        self._misfits: list[float] = []

    @property
    def known(self) -> bool:
        """Whether a time was read."""
        return bool(self._shortest)

    def read(self, boot_s: float, arrived_s: float) -> bool:
        """Takes the time of a packet.

        Args:
            boot_s: By the sender's clock.
            arrived_s: By ours.

        Returns:
            Whether it fits. After a new start, :attr:`restarts` has grown and it does.
        """
        offset_s = arrived_s - boot_s
        if self.known and not -_EARLY_S <= offset_s - self.offset_s <= _LATE_S:
            return self._misfit(offset_s, arrived_s)
        self._misfits.clear()
        self._keep(offset_s, arrived_s)
        return True

    @property
    def offset_s(self) -> float:
        """Seconds that our clock is ahead of the sender's."""
        return self._shortest[0][1]

    def _keep(self, offset_s: float, arrived_s: float) -> None:
        """Keeps the offsets that may still become the shortest, in rising order."""
        while self._shortest and self._shortest[-1][1] >= offset_s:
            self._shortest.pop()
        self._shortest.append((arrived_s, offset_s))
        while self._shortest[0][0] < arrived_s - _WINDOW_S:
            self._shortest.popleft()

    def _misfit(self, offset_s: float, arrived_s: float) -> bool:
        if self._misfits and abs(offset_s - self._misfits[0]) > _EARLY_S:
            self._misfits.clear()
        self._misfits.append(offset_s)
        if len(self._misfits) < _BELIEVED_AFTER:
            return False
        self._shortest.clear()
        self._misfits.clear()
        self.restarts += 1
        self._keep(offset_s, arrived_s)
        return True
