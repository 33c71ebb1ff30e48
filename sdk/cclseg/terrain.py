"""The ground by a terrain model: heights in a GeoTIFF, read around the camera only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .closing import Closing
from .errors import InputError, MissingDependencyError
from .geodesy import TangentPlane

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .footprint import Points
    from .pose import Pose

try:
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.errors import RasterioError
    from rasterio.vrt import WarpedVRT
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "rasterio", extra="geo", purpose="reading a terrain model"
    ) from error

# Cells along a side of the piece of terrain that is held in memory (4 MB).
_MAX_CELLS = 1024
_SPARE = 1.5  # a piece reaches farther than the frame needs, so that the next ones need no new one
_LARGEST_REACH_M = 50_000
_BISECTIONS = 12


@dataclass(frozen=True, slots=True)
class _Piece:
    """Heights around a place, on a grid in metres.

    Attributes:
        latitude_deg: Of the centre.
        longitude_deg: Of the centre.
        heights_m: (n, n) float64, north up; NaN where there are none.
        cell_m: Side of a cell.
    """

    latitude_deg: float
    longitude_deg: float
    heights_m: NDArray[np.float64]
    cell_m: float

    @property
    def half_m(self) -> float:
        return len(self.heights_m) * self.cell_m / 2

    def offset_m(self, pose: Pose) -> tuple[float, float]:
        """Returns how far east and north of the centre a camera is."""
        centre = TangentPlane(self.latitude_deg, self.longitude_deg)
        east, north, _ = centre.local(pose.latitude_deg, pose.longitude_deg, 0.0)
        return float(east), float(north)

    def at(self, east_m: NDArray[np.float64], north_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns heights between the centres of the cells, bilinear."""
        last = len(self.heights_m) - 1
        column = np.clip((east_m + self.half_m) / self.cell_m - 0.5, 0, last)
        row = np.clip((self.half_m - north_m) / self.cell_m - 0.5, 0, last)
        left, top = (np.minimum(place.astype(np.intp), last - 1) for place in (column, row))
        right, below = column - left, row - top
        cells = self.heights_m
        upper = cells[top, left] * (1 - right) + cells[top, left + 1] * right
        lower = cells[top + 1, left] * (1 - right) + cells[top + 1, left + 1] * right
        return np.asarray(upper * (1 - below) + lower * below)


class TerrainGround(Closing):
    """Ground by a terrain model, such as a GeoTIFF of SRTM, Copernicus or a survey of one's own.

    Heights are taken as metres above the sea, as ``Pose.altitude_m`` is; where that is unknown the
    camera is ``Pose.height_m`` above the terrain below it. Any coordinate reference system will
    do. Not to be shared between threads.

    Args:
        path: A raster with heights in its first band.

    Raises:
        InputError: The file cannot be read or has no place on the earth.

    Example:
        >>> with TerrainGround("dem.tif") as terrain:  # doctest: +SKIP
        ...     view = GroundView(pose, camera, (720, 1280), terrain)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._raster: Any = rasterio.open(path)
        except RasterioError as error:
            raise InputError(f"cannot read the terrain model {path}: {error}") from error
        if self._raster.crs is None:
            self._raster.close()
            raise InputError(
                f"{path} does not say where on the earth it lies; expected a raster with a "
                "coordinate reference system (gdal_edit.py -a_srs EPSG:...)"
            )
        self._piece: _Piece | None = None

    def hits(self, pose: Pose, rays: Points) -> Points:
        """Returns where rays first meet the terrain; see :meth:`cclseg.footprint.Ground.hits`.

        Raises:
            InputError: The model has no heights there, or the camera is below them.
        """
        rays = rays / -rays[:, 2:]  # each now goes down by 1 m
        slope = float(np.hypot(rays[:, 0], rays[:, 1]).max())
        reach_m = 30.0
        while reach_m < _LARGEST_REACH_M:
            piece = self._around(pose, reach_m)
            camera_m, floor_m = self._heights(pose, piece)
            needed_m = slope * (camera_m - floor_m)
            if needed_m <= reach_m:
                return rays * _first_drop(pose, rays, piece, camera_m)[:, None]
            reach_m = max(1.2 * needed_m, 2 * reach_m)
        raise InputError(f"the rays of this frame go on for {needed_m:.0f} m; fly lower")

    def close(self) -> None:
        """Closes the file. May be called twice."""
        self._raster.close()

    def _heights(self, pose: Pose, piece: _Piece) -> tuple[float, float]:
        """Returns the height of the camera and that of the lowest ground in the model's terms."""
        east, north = piece.offset_m(pose)
        below_m = float(piece.at(np.array([east]), np.array([north]))[0])
        if math.isnan(below_m):
            raise InputError(
                f"{self.path} has no heights at {pose.latitude_deg:.6f}, "
                f"{pose.longitude_deg:.6f}; give a terrain model of this place"
            )
        if pose.altitude_m is None and pose.height_m is None:
            raise InputError("neither the camera's altitude nor its height is known")
        camera_m = below_m + (pose.height_m or 0) if pose.altitude_m is None else pose.altitude_m
        if camera_m <= below_m:
            raise InputError(
                f"the camera is at {camera_m:.1f} m, the terrain of {self.path} below it at "
                f"{below_m:.1f} m; do both count from the same sea level?"
            )
        return camera_m, float(np.nanmin(piece.heights_m))

    def _around(self, pose: Pose, reach_m: float) -> _Piece:
        """Returns a piece of terrain that reaches this far from the camera."""
        if self._piece is not None:
            offset_m = max(abs(part) for part in self._piece.offset_m(pose))
            if offset_m + reach_m <= self._piece.half_m:
                return self._piece
        self._piece = self._read(pose, _SPARE * reach_m)
        return self._piece

    def _read(self, pose: Pose, half_m: float) -> _Piece:
        """Reads the square around a camera as a grid in metres (azimuthal equidistant)."""
        latitude, longitude = pose.latitude_deg, pose.longitude_deg
        crs = f"+proj=aeqd +lat_0={latitude!r} +lon_0={longitude!r} +datum=WGS84 +units=m"
        try:
            with WarpedVRT(self._raster, crs=crs, resampling=Resampling.bilinear) as whole:
                cell_m = max(abs(whole.transform.a), 2 * half_m / _MAX_CELLS)
            count = max(2, math.ceil(2 * half_m / cell_m))
            left = -count * cell_m / 2
            place = rasterio.Affine(cell_m, 0, left, 0, -cell_m, -left)
            with WarpedVRT(
                self._raster,
                crs=crs,
                transform=place,
                width=count,
                height=count,
                resampling=Resampling.bilinear,
                add_alpha=False,
                nodata=self._raster.nodata,
            ) as square:
                heights = square.read(1, masked=True).astype(np.float64).filled(np.nan)
        except RasterioError as error:
            raise InputError(f"cannot read the terrain model {self.path}: {error}") from error
        return _Piece(latitude, longitude, heights, cell_m)


def _first_drop(pose: Pose, rays: Points, piece: _Piece, camera_m: float) -> NDArray[np.float64]:
    """Returns how far rays, which fall by 1 m each metre of the result, fall until they hit.

    Steps of at most one cell from above the highest ground down to below the lowest; between the
    first step below ground and the one before it, bisection.
    """
    east, north = piece.offset_m(pose)

    def above_m(fallen_m: NDArray[np.float64]) -> NDArray[np.float64]:
        ground_m = piece.at(east + rays[:, 0] * fallen_m, north + rays[:, 1] * fallen_m)
        return np.asarray(camera_m - fallen_m - ground_m)

    first_m = max(0.0, camera_m - float(np.nanmax(piece.heights_m)))
    last_m = camera_m - float(np.nanmin(piece.heights_m))
    slope = float(np.hypot(rays[:, 0], rays[:, 1]).max())
    steps = max(2, math.ceil(max(slope, 1e-3) * (last_m - first_m) / piece.cell_m) + 1)
    high = np.full(len(rays), first_m)
    low = np.full(len(rays), last_m)
    searching = np.ones(len(rays), bool)
    for fallen_m in np.linspace(first_m, last_m, steps):
        under = searching & (above_m(np.full(len(rays), fallen_m)) <= 0)
        low[under] = fallen_m
        searching &= ~under
        high[searching] = fallen_m
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        under = above_m(middle) <= 0
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    if np.isnan(above_m(low)).any():
        raise InputError("the terrain model has no heights where this frame looks")
    return low
