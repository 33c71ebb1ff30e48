"""Video through the AsyncPipeline of OpenVINO Model API (Apache-2.0), tile by tile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import openvino
from _plain_loop import padded_frame

if TYPE_CHECKING:
    from pathlib import Path

    from cclseg import ModelSpec
    from cclseg.frame import Image, Mask
    from cclseg.tiling import TilePlan

MODEL_API = "model-api"


class ModelApi:
    """Its SegmentationModel in its AsyncPipeline, with one stream of OpenVINO per thread.

    The tiles are those of a plan of ours. A tile's mask lies over those before it; the library's
    own tiler would add the logits of all tiles at the frame's size, which takes longer.
    """

    def __init__(self, path: Path, spec: ModelSpec, folder: Path, *, threads: int) -> None:
        from model_api.adapters import OpenvinoAdapter
        from model_api.models import SegmentationModel
        from model_api.pipelines import AsyncPipeline

        core = openvino.Core()
        model = core.read_model(path)
        model.reshape({model.input(0): [1, len(spec.bands), *spec.input_hw]})
        target = folder / "network.xml"
        openvino.save_model(model, target, compress_to_fp16=False)
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        adapter = OpenvinoAdapter(core, str(target), device="CPU", plugin_config=options)
        configuration = {
            "mean_values": list(spec.mean),
            "scale_values": list(spec.std),
            "reverse_input_channels": True,
            "labels": list(spec.class_names),
            "resize_type": "standard",
            "blur_strength": -1,  # classes straight from the logits
            "return_soft_prediction": False,
        }
        self._spec = spec
        self._pipeline = AsyncPipeline(SegmentationModel(adapter, configuration))
        self._submitted = self._collected = 0

    def masks(self, frames: Iterable[Image]) -> Iterator[Mask]:
        """Yields the mask of each frame, in order."""
        waiting: list[tuple[TilePlan, Mask]] = []
        for frame in frames:
            padded, plan = padded_frame(frame, self._spec)
            waiting.append((plan, np.empty(padded.shape[:2], np.uint8)))
            for top, left in plan.corners:
                while not self._pipeline.is_ready():
                    yield from self._finished(waiting)
                    self._pipeline.await_any()
                height, width = plan.tile_hw
                tile = np.ascontiguousarray(padded[top : top + height, left : left + width])
                self._pipeline.submit_data(tile, self._submitted)
                self._submitted += 1
        self._pipeline.await_all()
        yield from self._finished(waiting)

    def _finished(self, waiting: list[tuple[TilePlan, Mask]]) -> Iterator[Mask]:
        """Takes the results that are there, and yields the frames that they complete."""
        while (result := self._pipeline.get_result(self._collected)) is not None:
            plan, mask = waiting[0]
            index = self._collected % len(plan.corners)
            top, left = plan.corners[index]
            height, width = plan.tile_hw
            mask[top : top + height, left : left + width] = result[0]
            self._collected += 1
            if index + 1 == len(plan.corners):
                del waiting[0]
                yield mask[: plan.frame_hw[0], : plan.frame_hw[1]]
