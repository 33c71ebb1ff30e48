"""The classes of virtual scenes: ids, names and colours of the Dubai aerial data set."""

from __future__ import annotations

BUILDING, LAND, ROAD, VEGETATION, WATER = range(5)

CLASS_NAMES = ("building", "land", "road", "vegetation", "water")

PALETTE = ((60, 16, 152), (132, 41, 246), (110, 193, 228), (254, 221, 58), (226, 169, 41))
"""One (red, green, blue) colour per class id."""
