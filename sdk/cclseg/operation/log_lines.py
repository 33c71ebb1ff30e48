"""Log records as lines of JSON, for programs that collect logs."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any

_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Writes a record as one line: time, level, logger, message, and the fields of its event.

    Fields are what the call gave as ``extra``, such as ``event``, ``stream`` and ``state``.

    Example:
        >>> record = logging.makeLogRecord({"msg": "it is %s", "args": ("lost",), "stream": "left"})
        >>> JsonFormatter().format(record)[35:]
        '"level": "notset", "logger": null, "message": "it is lost", "stream": "left"}'
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, without its end."""
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _OF_EVERY_RECORD and name not in line:
                line[name] = value
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line, ensure_ascii=False, default=str)
