"""Ending a job in good order when the terminal or the system asks for it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..operation.log_lines import JsonFormatter
from ..pipeline import StopRequest

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STANDARD_ERROR = 2
_STOPPING = "stopping: what is on its way is written; once more to stop at once"


@contextmanager
def stop_on_signals(*, as_json: bool = False) -> Iterator[StopRequest]:
    """Turns the first SIGINT or SIGTERM into a request to stop; the second one interrupts at once.

    The first is answered with a line on the standard error, of JSON where that is asked for.

    Outside the main thread, where no signals arrive, the request is never made.
    """
    stop = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        os.write(
            _STANDARD_ERROR, _stopping_line(as_json)
        )  # the stream may be in the middle of another line
        stop()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopping_line(as_json: bool) -> bytes:
    if not as_json:
        return f"{_STOPPING}\n".encode()
    record = logging.LogRecord(__name__, logging.INFO, "", 0, _STOPPING, None, None)
    return f"{JsonFormatter().format(record)}\n".encode()
