"""Places on the earth in degrees, and metres around them, by the WGS 84 ellipsoid.

Formulas: B. Hofmann-Wellenhof, H. Lichtenegger, E. Wasle, "GNSS - Global Navigation Satellite
Systems", Springer 2008, section 8.2: (8.6) from geodetic to cartesian coordinates; the iteration of
B. R. Bowring, "Transformation from spatial to geographical coordinates", Survey Review XXIII 181
(1976), back again; (8.22) the local level system.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SEMI_MAJOR_M = 6378137.0
FLATTENING = 1 / 298.257223563

_SEMI_MINOR_M = SEMI_MAJOR_M * (1 - FLATTENING)
_E2 = FLATTENING * (2 - FLATTENING)
_E2_SECOND = _E2 / (1 - _E2)


@dataclass(frozen=True)
class TangentPlane:
    """Metres east, north and up of a place.

    Attributes:
        latitude_deg: Degrees north.
        longitude_deg: Degrees east.
        altitude_m: Metres above the ellipsoid. Heights above the sea differ from those by up to
            100 m, which moves a point 1 km away by 2 cm.

    Example:
        >>> plane = TangentPlane(47.0, 8.0)
        >>> latitude, longitude, _ = plane.geodetic(np.array([0.0, 1000.0, 0.0]))
        >>> round(float(latitude), 6), round(float(longitude), 6)
        (47.008995, 8.0)
    """

    latitude_deg: float
    longitude_deg: float
    altitude_m: float = 0.0

    @functools.cached_property
    def _centre(self) -> Array:
        return to_cartesian(self.latitude_deg, self.longitude_deg, self.altitude_m)

    @functools.cached_property
    def _axes(self) -> Array:
        """(3, 3): the directions east, north and up in rows, in cartesian coordinates."""
        (sp, cp), (sl, cl) = (
            (np.sin(angle), np.cos(angle))
            for angle in np.deg2rad([self.latitude_deg, self.longitude_deg])
        )
        return np.array([[-sl, cl, 0], [-sp * cl, -sp * sl, cp], [cp * cl, cp * sl, sp]])

    def local(
        self, latitude_deg: Array | float, longitude_deg: Array | float, altitude_m: Array | float
    ) -> Array:
        """Returns (..., 3) metres east, north and up of this place."""
        offset = to_cartesian(latitude_deg, longitude_deg, altitude_m) - self._centre
        return np.asarray(offset @ self._axes.T)

    def geodetic(self, local_m: Array) -> tuple[Array, Array, Array]:
        """Returns latitude and longitude in degrees, and altitude, of (..., 3) local metres."""
        return to_geodetic(local_m @ self._axes + self._centre)


def to_cartesian(
    latitude_deg: Array | float, longitude_deg: Array | float, altitude_m: Array | float
) -> Array:
    """Returns (..., 3) metres from the centre of the earth: x to 0° east, z to the north pole."""
    latitude, longitude = np.deg2rad(latitude_deg), np.deg2rad(longitude_deg)
    normal_m = SEMI_MAJOR_M / np.sqrt(1 - _E2 * np.sin(latitude) ** 2)
    ring_m = (normal_m + altitude_m) * np.cos(latitude)
    z_m = ((1 - _E2) * normal_m + altitude_m) * np.sin(latitude)
    return np.stack(
        np.broadcast_arrays(ring_m * np.cos(longitude), ring_m * np.sin(longitude), z_m), axis=-1
    )


def to_geodetic(cartesian_m: Array) -> tuple[Array, Array, Array]:
    """Returns latitude and longitude in degrees, and altitude in metres, of (..., 3) places.

    Two rounds of Bowring's iteration; below 10 km of altitude the first one is exact to 1e-7 m.
    """
    x, y, z = np.moveaxis(cartesian_m, -1, 0)
    ring = np.hypot(x, y)
    reduced = np.arctan2(z * SEMI_MAJOR_M, ring * _SEMI_MINOR_M)
    for _ in range(2):
        latitude = np.arctan2(
            z + _E2_SECOND * _SEMI_MINOR_M * np.sin(reduced) ** 3,
            ring - _E2 * SEMI_MAJOR_M * np.cos(reduced) ** 3,
        )
        reduced = np.arctan2((1 - FLATTENING) * np.sin(latitude), np.cos(latitude))
    normal = SEMI_MAJOR_M / np.sqrt(1 - _E2 * np.sin(latitude) ** 2)
    # Along the normal: exact at the poles too, where ring / cos(latitude) is 0 / 0.
    altitude = ring * np.cos(latitude) + z * np.sin(latitude) - SEMI_MAJOR_M**2 / normal
    return np.rad2deg(latitude), np.rad2deg(np.arctan2(y, x)), altitude
