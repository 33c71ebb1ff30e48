"""What frames show, on the ground: lines of GeoJSON for maps and databases."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..footprint import GroundView
from ..geojson import Feature, frame_feature, region_features
from .lines import LinesSink

if TYPE_CHECKING:
    from ..frame import Frame
    from ..result import Segmentation
    from ..terrain import TerrainGround


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoOptions:
    """What is written about the ground.

    Attributes:
        terrain: A raster of heights, None for flat ground below the camera.
        regions: A feature for each connected region of the mask too.
        min_area_m2: Smaller regions are left out.
        simplify_px: How far outlines of regions may lie beside the pixels' edges.
    """

    terrain: Path | None = None
    regions: bool = False
    min_area_m2: float = 0.0
    simplify_px: float = 0.0


class GeoLinesSink(LinesSink):
    """A ``.geojsonl`` file with one GeoJSON feature a line: each frame's footprint, and regions.

    Newline-delimited GeoJSON, which GDAL ("GeoJSONSeq"), QGIS and PostGIS read. A frame without a
    position, or one that shows no ground, has a feature without geometry that says why.

    Example:
        >>> options = GeoOptions(regions=True)
        >>> with open_sink("water.geojsonl", geo=options) as sink:  # doctest: +SKIP
        ...     for out in segmenter.stream("photos"):
        ...         sink.write(out.frame, out)
    """

    def __init__(self, path: Path, options: GeoOptions | None = None) -> None:
        super().__init__(path)
        self._options = options or GeoOptions()
        if self._options.simplify_px:
            from .. import simplify  # noqa: F401 - says at once what is not installed
        self._terrain = _opened(self._options.terrain)

    def lines(self, frame: Frame, result: Segmentation) -> bytes:
        """Returns the lines of one frame; it is whole in the file or not there at all."""
        features = self._features(frame, result)
        texts = (json.dumps(feature, allow_nan=False, ensure_ascii=False) for feature in features)
        return "".join(f"{text}\n" for text in texts).encode()

    def _features(self, frame: Frame, result: Segmentation) -> list[Feature]:
        missing = _missing(frame)
        if missing or frame.pose is None or frame.camera is None:
            return [frame_feature(frame, result, None, missing)]
        try:
            view = GroundView(frame.pose, frame.camera, frame.size_hw, self._terrain)
            features = [frame_feature(frame, result, view, "")]
            if self._options.regions:
                features += region_features(
                    frame,
                    result,
                    view,
                    min_area_m2=self._options.min_area_m2,
                    simplify_px=self._options.simplify_px,
                )
        except InputError as error:  # no height, no terrain: the frame has its line all the same
            return [frame_feature(frame, result, None, str(error))]
        return features

    def finish(self) -> None:
        """Flushes the lines to the disk."""
        super().finish()
        self.abort()

    def abort(self) -> None:
        """Closes the files; the lines are whole and stay."""
        super().abort()
        if self._terrain is not None:
            self._terrain.close()


def _opened(terrain: Path | None) -> TerrainGround | None:
    if terrain is None:
        return None
    from ..terrain import TerrainGround

    return TerrainGround(terrain)


def _missing(frame: Frame) -> str:
    if frame.pose is None:
        return "the frame has no position; --mavlink or photos with EXIF bring one"
    if frame.camera is None:
        return "the focal length is unknown; give --camera or --hfov"
    return ""
