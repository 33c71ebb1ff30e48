"""Finding MAVLink packets, versions 1 and 2, in bytes that may hold anything.

Layout (https://mavlink.io/en/guide/serialization.html)::

    1: 0xFE length sequence system component message payload checksum
    2: 0xFD length incompatible compatible sequence system component message(3) payload checksum
       [signature(13)]

The checksum is CRC-16/MCRF4XX over all between the first byte and itself, and a seed of the
message's definition. A packet with an unknown message has a seed that we do not know; then one in
256 of all wrong packets passes, which costs nothing but the bytes that it spans.
"""

from __future__ import annotations

import binascii
import mmap
from dataclasses import dataclass, field

from .messages import FORMS

_V1, _V2 = 0xFE, 0xFD
_SIGNED = 0x01  # the only incompatibility flag there is; with any other we would misread
_SIGNATURE_BYTES = 13
_CHECKSUM_BYTES = 2

_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_STEPS = frozenset(binascii.crc_hqx(bytes([byte]), 0) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet whose checksum is right.

    Attributes:
        sequence: Counts the sender's packets, modulo 256.
        system: Number of the aircraft.
        component: Number of the part of it that sent the packet.
        message: Number of the message.
        payload: Its fields, zeros at the end left out.
        checksum: Of the packet.
        signed: A signature is there. It is not checked: the key belongs to the aircraft.
    """

    sequence: int
    system: int
    component: int
    message: int
    payload: bytes
    checksum: int
    signed: bool


@dataclass(slots=True)
class Found:
    """What was found in the bytes so far.

    Attributes:
        packets: Packets whose checksum was right.
        bad_checksums: Packets that were damaged, or bytes that only began like one.
        skipped_bytes: Bytes that belong to no packet.
    """

    packets: int = 0
    bad_checksums: int = 0
    skipped_bytes: int = 0


@dataclass(slots=True)
class PacketReader:
    """Finds packets in a stream of bytes that comes in pieces.

    Example:
        >>> reader = PacketReader()
        >>> reader.feed(b"noise, not one packet")
        []
        >>> reader.found.skipped_bytes
        21
    """

    found: Found = field(default_factory=Found)
    _rest: bytes = b""

    def feed(self, data: bytes) -> list[Packet]:
        """Takes the next bytes and returns the packets that are complete now."""
        data, start, packets = self._rest + data, 0, []
        while True:
            packet, start, end = next_packet(data, start, self.found)
            if packet is None:
                break
            packets.append(packet)
            start = end
        self._rest = data[start:]  # at most one packet
        return packets


def next_packet(
    data: bytes | mmap.mmap, start: int, found: Found
) -> tuple[Packet | None, int, int]:
    """Finds the first packet from an offset on.

    Args:
        data: Any bytes.
        start: Where to begin.
        found: Where to count.

    Returns:
        The packet, where it begins and where it ends. Without a packet, None and twice the offset
        from which on more bytes may complete one.
    """
    searched = start
    while (begin := _next_mark(data, searched)) < len(data):
        found.skipped_bytes += begin - searched
        length = _length(data, begin)
        if length is None or begin + length > len(data):
            return None, begin, begin
        if length and (packet := _checked(data[begin : begin + length], found)):
            found.packets += 1
            return packet, begin, begin + length
        found.skipped_bytes += 1
        searched = begin + 1
    found.skipped_bytes += begin - searched
    return None, begin, begin


def _next_mark(data: bytes | mmap.mmap, start: int) -> int:
    """Returns where the next packet may begin, else the length of the data."""
    places = [place for mark in (b"\xfe", b"\xfd") if (place := data.find(mark, start)) >= 0]
    return min(places, default=len(data))


def _length(data: bytes | mmap.mmap, begin: int) -> int | None:
    """Returns the bytes of the packet that begins here; None where its head is not complete.

    0 is returned for what is no packet.
    """
    if len(data) < begin + 3:
        return None
    if data[begin] == _V1:
        return 6 + data[begin + 1] + _CHECKSUM_BYTES
    flags = data[begin + 2]
    if flags & ~_SIGNED:
        return 0
    return 10 + data[begin + 1] + _CHECKSUM_BYTES + (_SIGNATURE_BYTES if flags else 0)


def _checked(packet: bytes, found: Found) -> Packet | None:
    """Returns the packet where its checksum is right and its length that of its message."""
    old = packet[0] == _V1
    head = 6 if old else 10
    end = head + packet[1]
    sequence, system, component = packet[2:5] if old else packet[4:7]
    message = packet[5] if old else int.from_bytes(packet[7:10], "little")
    checksum = int.from_bytes(packet[end : end + 2], "little")
    form = FORMS.get(message)
    if not _sum_is_right(packet[1:end], checksum, None if form is None else form.seed):
        found.bad_checksums += 1
        return None
    if form is not None and old and packet[1] != form.length:
        return None
    signed = not old and bool(packet[2] & _SIGNED)
    return Packet(sequence, system, component, message, packet[head:end], checksum, signed)


def _sum_is_right(data: bytes, checksum: int, seed: int | None) -> bool:
    """Checks a checksum with a seed, or whether any seed would give it.

    The standard library has the same polynomial with the bits of each byte the other way round.
    """
    expected = int(f"{checksum:016b}"[::-1], 2)
    before = binascii.crc_hqx(data.translate(_MIRRORED), 0xFFFF)
    if seed is not None:
        return binascii.crc_hqx(_MIRRORED[seed : seed + 1], before) == expected
    return expected ^ (before << 8 & 0xFFFF) in _STEPS
