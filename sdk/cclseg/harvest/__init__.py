"""The harvest: the frames of a flight that are worth labelling.

The network knows best where it does not know. A harvest keeps the frames of which it was least
sure, no two alike, in a dataset folder with the network's masks as drafts.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..closing import Closing
from ..errors import InputError
from ..sinks import Sink
from .choice import Choice, Verdict
from .folder import SPLIT, HarvestFolder
from .look import Look, look_at, rivals

if TYPE_CHECKING:
    from ..frame import Frame
    from ..result import Segmentation

__all__ = ["SPLIT", "Harvest", "HarvestSink"]


class Harvest(Closing):
    """Keeps the frames that are worth labelling most.

    Memory and disk hold ``frames`` of them at most, however long it goes on. The folder is a valid
    dataset from its first frame on, also after the program was killed, and a harvest that was begun
    there is gone on with.

    Args:
        folder: Where they are kept.
        frames: How many.

    Raises:
        InputError: Less than one frame.

    Example:
        >>> with Harvest("to_label", frames=50) as harvest:  # doctest: +SKIP
        ...     for out in segmenter.stream("rtsp://10.0.0.7/live"):
        ...         harvest.offer(out.frame, out)
    """

    def __init__(self, folder: str | Path, *, frames: int) -> None:
        if frames < 1:
            raise InputError(f"a harvest of {frames} frames; expected at least 1")
        self.path = Path(folder)
        self._choice = Choice(frames)
        self._folder: HarvestFolder | None = None
        self._class_names: tuple[str, ...] = ()
        self.offered = 0

    def __len__(self) -> int:
        return len(self._choice.looks)

    def offer(self, frame: Frame, result: Segmentation) -> bool:
        """Looks at a frame; returns whether it is kept for now.

        Raises:
            InputError: The folder holds something else, or the image fits no image file.
            SinkError: The disk is full or the folder cannot be written to.
        """
        folder = self._opened(result)
        self.offered += 1
        look = look_at(frame, result)
        verdict = self._choice.judge(look)
        if verdict.kept:
            record = _record(frame, result, look, verdict)
            folder.add(record, frame.image, result.mask, evicted=verdict.evicted)
            self._choice.take(look, verdict)
        return verdict.kept

    def close(self) -> None:
        """Lets other programs have the folder, in which everything stays. May be called twice."""
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def _opened(self, result: Segmentation) -> HarvestFolder:
        """Opens the folder when the first result tells the classes."""
        if self._folder is None:
            self._folder = HarvestFolder(
                self.path,
                class_names=result.class_names,
                palette=result.palette,
                ignore_index=result.ignore_index,
            )
            self._choice.looks = [_look(record) for record in self._folder.records]
            while len(self._choice.looks) > self._choice.capacity:
                place = self._choice.least()
                self._folder.remove(place)
                del self._choice.looks[place]
        return self._folder


class HarvestSink(Sink):
    """Another sink, with a harvest of the frames that go through it."""

    def __init__(self, sink: Sink, harvest: Harvest) -> None:
        self._sink = sink
        self._harvest = harvest
        self.target = sink.target

    def write(self, frame: Frame, result: Segmentation) -> None:
        """Writes the result, and offers the frame to the harvest."""
        self._sink.write(frame, result)
        self.encoder = self._sink.encoder
        self._harvest.offer(frame, result)

    def finish(self) -> None:
        """Completes what is written."""
        self._harvest.close()
        self._sink.finish()

    def abort(self) -> None:
        """Removes what is not complete; the harvest is complete at any time."""
        self._harvest.close()
        self._sink.abort()


def _record(frame: Frame, result: Segmentation, look: Look, verdict: Verdict) -> dict[str, Any]:
    stem = f"{frame.stream}_{frame.name}" if frame.stream else frame.name
    return {
        "stem": stem.replace("/", "_"),
        "score": round(look.score, 6),
        "why": _why(result, look, verdict),
        "index": frame.index,
        "timestamp_s": frame.timestamp_s,
        "source": None if frame.path is None else str(frame.path),
        "pose": None if frame.pose is None else asdict(frame.pose),
        "camera": None if frame.camera is None else asdict(frame.camera),
        "fractions": {name: round(share, 4) for name, share in result.fractions().items()},
        "unsure": round(look.unsure, 6),
        "features": [round(float(value), 5) for value in look.features],
    }


def _why(result: Segmentation, look: Look, verdict: Verdict) -> str:
    pair = rivals(result)
    between = f", mostly between {pair[0]} and {pair[1]}" if pair else ""
    if verdict.distance is None:
        rank = "no kept frame was less sure"
    else:
        rank = f"{verdict.distance:.2f} from the nearest kept frame that was less sure"
    return f"unsure of {look.unsure:.0%} of the frame{between}; {rank}"


def _look(record: dict[str, Any]) -> Look:
    features = np.array(record["features"], np.float32)
    return Look(float(record["score"]), float(record["unsure"]), features)
