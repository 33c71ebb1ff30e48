"""Random frames on a GPU against the definitions in numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from _gpu_work import CLASSES, TILES_PER_CALL, OnDevice, spec_for
from _stand_in import STRIDE

from cclseg.postprocess import enlarged
from cclseg.preprocess import Normaliser
from cclseg.tiling import Blender, TilePlan, plan_tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cclseg.gpu.image_kernels import ResultType
    from cclseg.spec import ModelSpec


class Checks(OnDevice):
    """Raises AssertionError where the GPU and numpy differ."""

    def check_kernels(self, cases: int) -> float:
        """Compares random frames with numpy; returns the largest error of the confidence."""
        worst = 0.0
        for _ in range(cases):
            height, width = map(int, self.rng.integers(1, 700, 2))
            tile_hw = tuple(STRIDE * int(n) for n in self.rng.integers(2, 40, 2))
            spec = spec_for((tile_hw[0], tile_hw[1]))
            frame = self.rng.integers(0, 256, (height, width, 3), np.uint8)
            plan = plan_tiles((height, width), spec.input_hw, overlap=0.25, stride=STRIDE)
            self._check_tiles(frame, spec, plan)
            worst = max(worst, self._check_rest(plan))
            self.clear()
        return worst

    def _check_tiles(self, frame: NDArray[Any], spec: ModelSpec, plan: TilePlan) -> None:
        normaliser = Normaliser(spec)
        normaliser.load(frame, channels="bgr")
        corners = np.array(plan.corners[:TILES_PER_CALL], np.int32)
        expected = np.empty((len(corners), 3, *spec.input_hw), np.float32)
        for corner, tile in zip(corners, expected, strict=True):
            normaliser.normalise(int(corner[0]), int(corner[1]), tile)
        for half, dtype in ((False, np.float32), (True, np.float16)):
            work = self.normalising(frame.shape, spec, corners, self.place(frame), half=half)
            found = self.run(work.plan, self.placed[-1], expected.shape, dtype)
            np.testing.assert_array_equal(found, expected.astype(dtype))

    def _check_rest(self, plan: TilePlan) -> float:
        tile = tuple(length // STRIDE for length in plan.tile_hw)
        logits = self.rng.normal(size=(len(plan.corners), CLASSES, *tile)).astype(np.float32)
        blender = Blender(plan, num_classes=CLASSES)
        for index, each in enumerate(logits):
            blender.add(index, each)
        canvas = self.reserve(blender.canvas.nbytes)
        blends = self.blending(plan, canvas, self.place(logits), len(logits))
        found = self.run(blends.plan, canvas, blender.canvas.shape, np.float32)
        np.testing.assert_array_equal(found, blender.canvas)

        planes = enlarged(blender.canvas, stride=STRIDE, size_hw=plan.frame_hw)
        for dtype in ("uint8", "uint16"):
            ids = self._result(plan, canvas, dtype)
            np.testing.assert_array_equal(ids, planes.argmax(axis=0))
        wide = planes.astype(np.float64)
        exact = 1 / np.exp(wide - wide.max(axis=0)).sum(axis=0)
        error = np.abs(self._result(plan, canvas, "float32") / exact - 1).max()
        assert error < 1e-6, f"the confidence is off by {error}"
        return float(error)

    def _result(self, plan: TilePlan, canvas: int, dtype: ResultType) -> NDArray[Any]:
        work = self.resulting(plan, canvas, dtype)
        return self.run(work.plan, self.placed[-1], plan.frame_hw, dtype)

    def check_pipeline(self, frames: int) -> int:
        """Sends frames of changing sizes through, two on their way; their masks are numpy's."""
        spec = spec_for((64, 96))
        pipeline = self.pipeline(spec)
        sizes = [tuple(map(int, self.rng.integers(1, 300, 2))) for _ in range(3)]
        given = [
            self.rng.integers(0, 256, (*sizes[i // 4 % 3], 3), np.uint8) for i in range(frames)
        ]
        collects = [pipeline.submit(frame) for frame in given]
        for frame, collect in zip(given, collects, strict=True):
            out = collect()
            planes = enlarged(_means_of(frame, spec), stride=STRIDE, size_hw=frame.shape[:2])
            np.testing.assert_array_equal(out.mask, planes.argmax(axis=0))
        return frames


def _means_of(frame: NDArray[Any], spec: ModelSpec) -> NDArray[np.float32]:
    """Returns the blended logits of a frame, by numpy alone."""
    plan = plan_tiles(
        (frame.shape[0], frame.shape[1]), spec.input_hw, overlap=spec.overlap, stride=STRIDE
    )
    normaliser, blender = Normaliser(spec), Blender(plan, num_classes=3)
    normaliser.load(frame, channels="bgr")
    tile = np.empty((3, *spec.input_hw), np.float32)
    for index, corner in enumerate(plan.corners):
        normaliser.normalise(*corner, tile)
        height, width = spec.input_hw
        blocks = tile.reshape(3, height // STRIDE, STRIDE, width // STRIDE, STRIDE)
        # In the order of the network: sixteen values of a block, row by row, in float64.
        flat = blocks.transpose(0, 1, 3, 2, 4).reshape(3, height // STRIDE, width // STRIDE, 16)
        total = np.zeros(flat.shape[:3])
        for k in range(STRIDE**2):
            total += flat[..., k]
        blender.add(index, (total / STRIDE**2).astype(np.float32))
    return blender.canvas
