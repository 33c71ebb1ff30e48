"""What is closed when its ``with`` block ends."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

_Closing = TypeVar("_Closing", bound="Closing")


class Closing:
    """A context manager that closes itself; a subclass that holds something overrides close."""

    def close(self) -> None:
        """Frees what the object holds. May be called twice."""

    def __enter__(self: _Closing) -> _Closing:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
