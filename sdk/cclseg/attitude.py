"""Attitudes as quaternions (w, x, y, z), and as yaw, pitch and roll.

A quaternion turns a direction from the axes of a body (ahead, right, down) to those of the earth
(north, east, down), as MAVLink has it. The angles are yaw, then pitch, then roll (intrinsic z, y,
x): J. Diebel, "Representing Attitude: Euler Angles, Unit Quaternions, and Rotation Vectors",
Stanford University 2006, sections 6.1 (quaternions) and 8.2 (sequence 1, 2, 3).
"""

from __future__ import annotations

import math
from typing import TypeAlias

Quaternion: TypeAlias = tuple[float, float, float, float]

_NEARLY_ONE = 1 - 1e-12


def from_angles(yaw_deg: float, pitch_deg: float, roll_deg: float) -> Quaternion:
    """Returns the quaternion of three angles in degrees."""
    halves = (math.radians(angle) / 2 for angle in (yaw_deg, pitch_deg, roll_deg))
    (cy, sy), (cp, sp), (cr, sr) = ((math.cos(half), math.sin(half)) for half in halves)
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )


def to_angles(q: Quaternion) -> tuple[float, float, float]:
    """Returns yaw in [0, 360), pitch in [-90, 90] and roll in [-180, 180] in degrees.

    Straight up and straight down yaw and roll turn about the same axis; roll is then 0.
    """
    w, x, y, z = q
    sine = 2 * (w * y - z * x)
    if abs(sine) > _NEARLY_ONE:
        yaw = 2 * math.atan2(-x if sine > 0 else x, w)
        return math.degrees(yaw) % 360, math.copysign(90.0, sine), 0.0
    yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    roll = math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    return math.degrees(yaw) % 360, math.degrees(math.asin(sine)), math.degrees(roll)


def after(first: Quaternion, then: Quaternion) -> Quaternion:
    """Returns the attitude of a body that is turned by ``then`` in the axes of ``first``."""
    w1, x1, y1, z1 = first
    w2, x2, y2, z2 = then
    return (
        w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
        w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
        w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
        w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
    )


def normalized(q: Quaternion) -> Quaternion | None:
    """Returns the quaternion at length 1; None where it is none."""
    length = math.hypot(*q)
    if not 0.5 < length < 2:  # also what is not a number
        return None
    w, x, y, z = (part / length for part in q)
    return w, x, y, z


def between(first: Quaternion, second: Quaternion, share: float) -> Quaternion:
    """Returns the attitude on the shortest way between two: 0 is the first, 1 the second.

    Spherical linear interpolation (K. Shoemake, "Animating Rotation with Quaternion Curves",
    SIGGRAPH 1985).
    """
    cosine = sum(a * b for a, b in zip(first, second, strict=True))
    sign = -1.0 if cosine < 0 else 1.0  # q and -q are one attitude
    angle = math.acos(min(1.0, abs(cosine)))
    if angle < 1e-6:
        return first
    one = math.sin((1 - share) * angle) / math.sin(angle)
    other = sign * math.sin(share * angle) / math.sin(angle)
    w, x, y, z = (one * a + other * b for a, b in zip(first, second, strict=True))
    return w, x, y, z


def turned(q: Quaternion, rates_rad_s: tuple[float, float, float], elapsed_s: float) -> Quaternion:
    """Returns where a body turns that keeps its rates about its own axes (ahead, right, down)."""
    angle = math.hypot(*rates_rad_s) * elapsed_s
    if angle == 0:
        return q
    scale = math.sin(angle / 2) / math.hypot(*rates_rad_s)
    p, q_rate, r = rates_rad_s
    return after(q, (math.cos(angle / 2), p * scale, q_rate * scale, r * scale))
