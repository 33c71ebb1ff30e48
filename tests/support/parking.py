"""Images of a few cars on rough ground, at places and headings that are known."""

import cv2
import numpy as np

CARS = ((60, 60, 0), (200, 70, 45), (120, 160, 210), (230, 170, 300))
"""Centre x, y in pixels (of pixel edges) and heading in degrees, clockwise from up."""

CAR_WH = (22, 40)


def parking(cars=CARS, *, size_hw=(220, 280), noise=5.0, seed=0):
    """Returns (H, W, 3) uint8: the cars, drawn on a ground with structure of several sizes."""
    rng = np.random.default_rng(seed)
    ground = np.zeros((*size_hw, 3), np.float32)
    for cell in (5, 30):
        rows, columns = (length // cell + 2 for length in size_hw)
        ground += cv2.resize(
            rng.uniform(20, 90, (rows, columns, 3)).astype(np.float32), size_hw[::-1]
        )
    for x, y, heading in cars:
        _park(ground, x, y, heading)
    return (ground + rng.normal(0, noise, ground.shape)).clip(0, 255).astype(np.uint8)


def crop_of(image, car):
    """Cuts out a car that heads up."""
    x, y, heading = car
    assert heading == 0
    width, height = CAR_WH
    return image[y - height // 2 : y + height // 2, x - width // 2 : x + width // 2].copy()


def _park(ground, x, y, heading):
    angle = np.deg2rad(heading)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for left, top, right, bottom, bgr in (
        (-9, -18, 9, 18, (70, 70, 210)),  # body
        (-7, -11, 7, -4, (40, 30, 30)),  # windscreen
        (-7, 9, 7, 13, (60, 40, 40)),  # rear window
        (-8, -17, 8, -13, (230, 230, 240)),  # stripe
    ):
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)
        points = corners @ turn.T + (x - 0.5, y - 0.5)  # OpenCV's points are pixel centres
        cv2.fillPoly(ground, [np.round(points * 16).astype(np.int32)], bgr, cv2.LINE_AA, 4)
