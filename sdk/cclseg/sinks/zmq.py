"""Results to other processes by ZeroMQ: a publisher, and a reader for the other side.

A message has three parts:

1. topic: the name of the stream and a slash; "/" where there is one stream only,
2. header: UTF-8 JSON, the record of :func:`cclseg.sinks.records.record_of` with ``version`` (1),
   ``number`` (messages of this publisher so far, so that a reader sees what it missed),
   ``shape`` (height and width), ``dtype`` ("uint8" or "uint16", little-endian) and ``class_names``,
3. mask: class ids row by row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, MissingDependencyError, SinkError, SourceError
from .base import Sink
from .records import record_of

if TYPE_CHECKING:
    from ..frame import Frame, Mask
    from ..result import Segmentation

try:
    import zmq
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "zmq", extra="serve", purpose="handing results to other processes"
    ) from error

VERSION = 1
_DTYPES = ("uint8", "uint16")
# A reader that is slower than the stream misses messages beyond these.
_WAITING_MESSAGES = 4
_GOODBYE_MS = 1000
_LONGEST_MESSAGE_BYTES = 1 << 30


class ZmqSink(Sink):
    """Publishes results; any number of processes may subscribe, none can hold the stream up.

    Args:
        address: "tcp://ADDRESS:PORT" or "ipc://PATH". Whoever can reach it can read, so it should
            be of this machine ("tcp://127.0.0.1:5556"); "tcp://*:5556" is for every network.

    Raises:
        InputError: It is no such address.
        SinkError: It is in use or not of this machine.

    Example:
        >>> with open_sink("zmq:tcp://127.0.0.1:5556") as sink:  # doctest: +SKIP
        ...     for out in segmenter.stream("csi://0"):
        ...         sink.write(out.frame, out)
    """

    def __init__(self, address: str) -> None:
        self.target = f"zmq:{address}"
        self._number = 0
        _check_address(address)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, _WAITING_MESSAGES)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._close(linger_ms=0)
            raise SinkError(f"cannot publish at {address}: {error}; choose another one") from error

    def write(self, frame: Frame, result: Segmentation) -> None:
        """Publishes one result. A subscriber that does not keep up misses it."""
        mask = np.ascontiguousarray(result.mask)
        header = record_of(frame, result) | {
            "version": VERSION,
            "number": self._number,
            "shape": mask.shape,
            "dtype": mask.dtype.name,
            "class_names": result.class_names,
        }
        mask = mask.astype(mask.dtype.newbyteorder("<"), copy=False)
        text = json.dumps(header, ensure_ascii=False).encode()
        self._socket.send_multipart([topic_of(frame.stream), text, mask.data])
        self._number += 1

    def finish(self) -> None:
        """Leaves subscribers a second to fetch what waits for them."""
        self._close(linger_ms=_GOODBYE_MS)

    def abort(self) -> None:
        """Ends the publisher."""
        self._close(linger_ms=0)

    def _close(self, *, linger_ms: int) -> None:
        self._socket.close(linger=linger_ms)
        self._context.term()


@dataclass(frozen=True, slots=True)
class Received:
    """A result of another process.

    Attributes:
        header: What is said of it; see the module.
        mask: (H, W) uint8 or uint16 class ids, read-only.
    """

    header: dict[str, Any]
    mask: Mask


def read_results(
    address: str, *, stream: str | None = None, timeout_s: float | None = None
) -> Iterator[Received]:
    """Yields the results of a publisher as they come, from those after the connection on.

    The publisher may be started later, and again; it is waited for.

    Args:
        address: That of the publisher, without "zmq:".
        stream: One of its streams by name; None for all.
        timeout_s: End when nothing came for this time; None to wait for ever.

    Raises:
        InputError: It is no address.
        SourceError: What came is no result.

    Example:
        >>> for out in read_results("tcp://127.0.0.1:5556"):  # doctest: +SKIP
        ...     print(out.header["frame"], out.header["fractions"], out.mask.shape)
    """
    _check_address(address)
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, _WAITING_MESSAGES)
        socket.setsockopt(zmq.MAXMSGSIZE, _LONGEST_MESSAGE_BYTES)
        socket.setsockopt(zmq.SUBSCRIBE, b"" if stream is None else topic_of(stream))
        socket.connect(address)
        while socket.poll(None if timeout_s is None else round(1000 * timeout_s)):
            yield received(socket.recv_multipart())


def topic_of(stream: str) -> bytes:
    """Returns the topic of a stream; the slash keeps "left" from matching "left2"."""
    return f"{stream}/".encode()


def received(parts: list[bytes]) -> Received:
    """Reads the parts of a message.

    Raises:
        SourceError: They are no result.
    """
    try:
        _, text, data = parts
        header = json.loads(text)
        if header["version"] != VERSION:
            raise SourceError(
                f"a message of version {header['version']} came; this reader knows {VERSION}: "
                "install the same cclseg on both sides"
            )
        if header["dtype"] not in _DTYPES:
            raise ValueError(f"class ids of type {header['dtype']}")
        pixels = np.frombuffer(data, np.dtype(header["dtype"]).newbyteorder("<"))
        height, width = header["shape"]
        return Received(header, pixels.reshape(height, width))
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"what came is no result: {error}; expected the three parts that cclseg publishes"
        ) from error


def _check_address(address: str) -> None:
    """Refuses what is no address, before the library says less about it.

    Raises:
        InputError: It is none.
    """
    if re.fullmatch(r"ipc://.+", address):
        return
    match = re.fullmatch(r"tcp://(?:\[([\da-f:]+)\]|([^:]+)):(\d+)", address)
    if match is None or int(match[3]) > 0xFFFF:
        raise InputError(f"zmq:{address} is no address; expected zmq:tcp://127.0.0.1:PORT")
    host = match[1] or match[2]
    try:
        if host != "*":
            ip_address(host)
    except ValueError as error:
        raise InputError(
            f"zmq:{address}: '{host}' is no address; expected one in numbers, such as 127.0.0.1"
        ) from error
