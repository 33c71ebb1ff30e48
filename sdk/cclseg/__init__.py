"""Edge-device inference SDK for semantic segmentation of UAV and satellite images.

Example:
    >>> from cclseg import Segmenter
    >>> segment = Segmenter("ccl-lite0")  # doctest: +SKIP
    >>> out = segment(frame)  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .frame import Frame
    from .result import Segmentation
    from .segmenter import Segmenter
    from .sinks import open_sink
    from .sources import open_source
    from .spec import ModelSpec

__version__ = "0.1.0"

__all__ = ["Frame", "ModelSpec", "Segmentation", "Segmenter", "open_sink", "open_source"]

_HOMES = {
    "Frame": "frame",
    "ModelSpec": "spec",
    "Segmentation": "result",
    "Segmenter": "segmenter",
    "open_sink": "sinks",
    "open_source": "sources",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class or function
    """Imports a public name when it is first used, so that this import costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cclseg' has no attribute '{name}'")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
