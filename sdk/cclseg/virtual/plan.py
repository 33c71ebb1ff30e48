"""The plan of a scene: what stands where, as vectors in metres.

Blocks and everything in them are laid out in a straight "plan" space and bent into the scene by
one smooth :class:`Warp`, so that streets curve together with the houses along them. Scene
coordinates are metres; x points right and y down from the top left corner of the scene.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""(n, 2) float64, x and y in metres."""

Rgb = tuple[int, int, int]
"""Red, green, blue in 0..255."""

Part = tuple[float, float, float, float]
"""Centre x, centre y, length and width of a rectangle in local metres."""

RoadKind = Literal["highway", "arterial", "street", "lane", "track"]
RoofKind = Literal["flat", "hip", "gable", "hall"]
PatchKind = Literal[
    "lawn",
    "soil",
    "crop",
    "paving",
    "parking",
    "golf",
    "park",
    "wild",
    "pool",
    "scrub",
    "verge",
    "yard",
    "graded",
]


@dataclass(frozen=True, slots=True)
class Rect:
    """An axis-parallel rectangle of the plan space, in metres."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Extent in x."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Extent in y."""
        return self.bottom - self.top

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the rectangle."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def inset(self, margin_m: float) -> Rect:
        """Moves all sides inwards."""
        return Rect(
            self.left + margin_m, self.top + margin_m, self.right - margin_m, self.bottom - margin_m
        )

    def corners(self) -> Points:
        """Clockwise from the top left."""
        return np.array(
            [
                (self.left, self.top),
                (self.right, self.top),
                (self.right, self.bottom),
                (self.left, self.bottom),
            ]
        )

    def split(self, share: float, *, across: bool) -> tuple[Rect, Rect]:
        """Cuts at a share of the width (``across``) or of the height."""
        if across:
            x = self.left + share * self.width
            return Rect(self.left, self.top, x, self.bottom), Rect(
                x, self.top, self.right, self.bottom
            )
        y = self.top + share * self.height
        return Rect(self.left, self.top, self.right, y), Rect(self.left, y, self.right, self.bottom)


@dataclass(frozen=True, slots=True)
class Road:
    """A strip along a line of the scene."""

    points: Points
    kind: RoadKind
    width_m: float


@dataclass(frozen=True, slots=True)
class Patch:
    """A piece of ground with one use.

    Attributes:
        outline: Corners in the scene.
        kind: Use.
        rgb: Colour, or None for that of the kind.
        furrow_rad: Direction of furrows or parking rows in the scene, None without.
        shade: Factor on the colour.
    """

    outline: Points
    kind: PatchKind
    rgb: Rgb | None = None
    furrow_rad: float | None = None
    shade: float = 1.0


@dataclass(frozen=True, slots=True)
class Building:
    """A building: rigid rectangles around a place of the scene.

    Attributes:
        centre: x and y in the scene.
        heading_rad: Direction of the local x axis in the scene.
        parts: (x, y, length, width) of each rectangle in local metres.
        height_m: Height of the roof's edge.
        roof: Form of the roof.
        rgb: Colour of the roof.
    """

    centre: tuple[float, float]
    heading_rad: float
    parts: tuple[Part, ...]
    height_m: float
    roof: RoofKind
    rgb: Rgb


@dataclass(frozen=True, slots=True)
class Warp:
    """A smooth map from plan space to the scene: waves, then optionally polar, then a turn.

    Attributes:
        centre: Fixed point of the turn, in the scene.
        turn_rad: Angle of the turn.
        waves: (k, 5): wave vector x and y (1/m), phase, displacement x and y (m).
        ring_m: Radius at which polar coordinates keep lengths, None for straight streets.
    """

    centre: tuple[float, float]
    turn_rad: float
    waves: Points
    ring_m: float | None = None

    def __call__(self, points: Points) -> Points:
        """Maps (n, 2) plan coordinates to the scene."""
        moved = np.array(points, np.float64)
        for kx, ky, phase, dx, dy in self.waves:
            wave = np.sin(points[:, 0] * kx + points[:, 1] * ky + phase)
            moved[:, 0] += dx * wave
            moved[:, 1] += dy * wave
        local = moved - self.centre
        if self.ring_m is not None:
            radius = np.maximum(local[:, 1] + self.ring_m, 1.0)
            angle = local[:, 0] / self.ring_m
            local = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
        cos, sin = np.cos(self.turn_rad), np.sin(self.turn_rad)
        turn = np.array([[cos, -sin], [sin, cos]])
        return np.asarray(local @ turn.T + self.centre)

    def axis(self, point: tuple[float, float], angle_rad: float) -> tuple[float, float]:
        """Where a direction at a point of the plan leads in the scene.

        Returns:
            The direction in the scene (radians) and the length of one plan metre there.
        """
        step_m = 0.5
        step = (step_m * np.cos(angle_rad), step_m * np.sin(angle_rad))
        start, end = self(np.array([point, (point[0] + step[0], point[1] + step[1])]))
        dx, dy = float(end[0] - start[0]), float(end[1] - start[1])
        return float(np.arctan2(dy, dx)), float(np.hypot(dx, dy)) / step_m


@dataclass(slots=True)
class Plan:
    """Collects the content of a scene; methods take plan coordinates and store scene coordinates.

    Attributes:
        warp: Map from plan space to the scene.
        roads: Strips, in any order.
        patches: Pieces of ground; later ones lie on top.
        buildings: Buildings; the first at a place wins.
        trees: (n, 5) arrays of x, y, radius, height in metres and tint in [0, 1].
        islands: x, y and radius of roundabouts.
        parked: (n, 3) arrays of x, y in metres and heading of cars.
        walls: Lines of garden walls.
    """

    warp: Warp
    roads: list[Road] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    trees: list[Points] = field(default_factory=list)
    islands: list[tuple[float, float, float]] = field(default_factory=list)
    parked: list[Points] = field(default_factory=list)
    walls: list[Points] = field(default_factory=list)

    def road(self, points: Points, kind: RoadKind, width_m: float) -> None:
        """Adds a road along straight pieces."""
        self.roads.append(Road(self.warp(densified(points)), kind, width_m))

    def patch(
        self,
        outline: Points,
        kind: PatchKind,
        *,
        rgb: Rgb | None = None,
        furrow_rad: float | None = None,
        shade: float = 1.0,
    ) -> None:
        """Adds a piece of ground; ``furrow_rad`` is a direction in the plan."""
        if furrow_rad is not None:
            middle = outline.mean(axis=0)
            furrow_rad = self.warp.axis((float(middle[0]), float(middle[1])), furrow_rad)[0]
        closed = densified(np.vstack([outline, outline[:1]]))[:-1]
        self.patches.append(Patch(self.warp(closed), kind, rgb, furrow_rad, shade))

    def building(
        self,
        centre: tuple[float, float],
        parts: tuple[Part, ...],
        height_m: float,
        *,
        roof: RoofKind = "flat",
        rgb: Rgb = (190, 186, 178),
        angle_rad: float = 0.0,
    ) -> None:
        """Adds a building; it is stretched with its lot, by a third at most, but not bent."""
        (place,) = self.warp(np.array([centre]))
        heading, along = self.warp.axis(centre, angle_rad)
        _, across = self.warp.axis(centre, angle_rad + np.pi / 2)
        along, across = (min(max(s, 0.66), 1.33) for s in (along, across))
        fitted = tuple(
            (x * along, y * across, length * along, width * across) for x, y, length, width in parts
        )
        self.buildings.append(
            Building((float(place[0]), float(place[1])), heading, fitted, height_m, roof, rgb)
        )

    def plant(self, xy: Points, radius_m: Points, height_m: Points, tint: Points) -> None:
        """Adds trees at (n, 2) plan coordinates."""
        if len(xy):
            self.trees.append(np.column_stack([self.warp(xy), radius_m, height_m, tint]))

    def park_cars(self, xy: Points, angle_rad: float) -> None:
        """Adds parked cars at (n, 2) plan coordinates, all in one direction of the plan."""
        if len(xy):
            middle = xy.mean(axis=0)
            heading, _ = self.warp.axis((float(middle[0]), float(middle[1])), angle_rad)
            self.parked.append(np.column_stack([self.warp(xy), np.full(len(xy), heading)]))

    def wall(self, points: Points) -> None:
        """Adds a garden wall along straight pieces."""
        self.walls.append(self.warp(densified(points)))

    def island(self, centre: tuple[float, float], radius_m: float) -> None:
        """Adds a roundabout: a ring road of 8 m around an island."""
        (place,) = self.warp(np.array([centre]))
        self.islands.append((float(place[0]), float(place[1]), radius_m))


def densified(points: Points, step_m: float = 8.0) -> Points:
    """Puts points between corners so that a bent line stays smooth."""
    pieces = []
    for start, end in itertools.pairwise(points):
        count = max(1, int(np.hypot(*(end - start)) / step_m))
        shares = np.arange(count)[:, None] / count
        pieces.append(start + shares * (end - start))
    return np.vstack([*pieces, points[-1:]])


def placed(local: Points, centre: tuple[float, float], heading_rad: float) -> Points:
    """Turns local points and moves them to a place."""
    cos, sin = np.cos(heading_rad), np.sin(heading_rad)
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.asarray(local @ turn.T + centre)


def rectangle(centre: tuple[float, float], heading_rad: float, part: Part) -> Points:
    """Corners of a part of something at a place."""
    x, y, length, width = part
    dx, dy = length / 2, width / 2
    local = np.array([(x - dx, y - dy), (x + dx, y - dy), (x + dx, y + dy), (x - dx, y + dy)])
    return placed(local, centre, heading_rad)


def circle(centre: tuple[float, float], radius_m: float, count: int = 32) -> Points:
    """Corners of a regular polygon."""
    angles = np.arange(count) * (2 * np.pi / count)
    return np.stack(
        [centre[0] + radius_m * np.cos(angles), centre[1] + radius_m * np.sin(angles)], axis=1
    )
