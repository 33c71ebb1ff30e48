"""Template matching: crops are slid over an image, and the best places kept.

The image is searched in strips of rows, each with the whole bank of templates, and only the best
score and its template are kept for each pixel. So memory does not grow with the bank.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, MissingDependencyError
from .found import Found, Place, painted
from .similarity import similarity
from .templates import Reference, Template, build_bank, check_steps
from .thresholds import Threshold, cut_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..frame import FloatArray
    from .similarity import Metric

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "cv2", extra="cpu", purpose="matching templates"
    ) from error

_log = logging.getLogger(__name__)

_STRIP_PIXELS = 1 << 21
_MAX_OVERLAP = 0.3
_COMPUTED = (np.uint8, np.uint16, np.float32)


def find_places(
    image: NDArray[Any],
    references: Sequence[Reference],
    *,
    metric: Metric = "ncc",
    angles: int = 24,
    scales: Sequence[float] = (1.0,),
    threshold: Threshold = "otsu",
    on_step: Callable[[int, int], None] | None = None,
) -> Found:
    """Finds where an image shows one of a few crops.

    The scores of an image are nearly all background, which Otsu would only cut in two; so the
    threshold is sought among the local maxima, the places that could be objects.

    Args:
        image: (H, W, C) of any real type and number of bands, without NaN.
        references: The crops, of the same type and bands.
        metric: "ncc", "ssd" or "sad"; see :mod:`cclseg.matching.similarity`.
        angles: Number of headings that are tried, evenly over the full turn.
        scales: Sizes that are tried, over that of the crop.
        threshold: Least score of a place, or "otsu" or "multi-otsu".
        on_step: Called with the number of steps done and of all.

    Returns:
        The places; the mask holds their boxes. Of two whose intersection over union is above 0.3
        only the better one stays.

    Raises:
        InputError: Something does not fit; says what to do.

    Example:
        >>> crop = image[100:140, 220:260]  # doctest: +SKIP
        >>> found = find_places(image, [Reference(crop)], threshold=0.7)  # doctest: +SKIP
        >>> [(place.x, place.y, place.angle_deg) for place in found.places]  # doctest: +SKIP
        [(240.0, 120.0, 0.0), (71.5, 30.0, 105.0)]
    """
    check_steps(angles, scales)
    _check(image, references, metric=metric, scales=scales)
    bank = _fitting(build_bank(references, angles=angles, scales=scales), image.shape)
    scores, which = _best_scores(image, bank, metric, on_step or _nobody_asks)
    peaks = _peaks(scores, radius=max(1, min(min(t.size_wh) for t in bank) // 2))
    heights = scores[peaks[:, 0], peaks[:, 1]]
    cut = cut_at(threshold, heights)
    passing = peaks[heights >= cut.value]
    ranked = passing[np.argsort(-scores[passing[:, 0], passing[:, 1]], kind="stable")]
    candidates = [
        _place(row, column, scores[row, column], bank[which[row, column]])
        for row, column in ranked.tolist()
    ]
    places = tuple(_without_overlaps(candidates))
    return Found(places, painted(places, scores.shape), scores, cut)


def _check(
    image: NDArray[Any], references: Sequence[Reference], *, metric: Metric, scales: Sequence[float]
) -> None:
    if metric not in ("ncc", "ssd", "sad"):
        raise InputError(f"the metric is '{metric}'; expected 'ncc', 'ssd' or 'sad'")
    if image.ndim != 3 or 0 in image.shape:
        raise InputError(f"the image is {image.shape}; expected (H, W, C) with pixels")
    if not references:
        raise InputError("there is no reference; give at least one crop")
    for array, name in ((image, "the image"), *((r.crop, r.name) for r in references)):
        if not np.isfinite(array).all():
            raise InputError(f"{name} holds NaN or infinity; fill pixels without data first")
    for reference in references:
        _check_fit(image, reference, scales)
        values = reference.crop[reference.valid]
        if metric == "ncc" and (values == values[0]).all():
            raise InputError(
                f"{reference.name} is of one colour, with which nothing correlates; take a crop "
                "with structure, or the metric ssd or sad"
            )


def _check_fit(image: NDArray[Any], reference: Reference, scales: Sequence[float]) -> None:
    crop, name = reference.crop, reference.name
    if crop.shape[2] != image.shape[2]:
        raise InputError(
            f"{name} has {crop.shape[2]} bands, the image {image.shape[2]}; cut the crop out of "
            "an image with the same bands"
        )
    if crop.dtype != image.dtype:
        raise InputError(
            f"{name} is {crop.dtype}, the image {image.dtype}; convert one to the other's type"
        )
    scale = max(scales)
    height, width = (round(length * scale) for length in crop.shape[:2])
    if height > image.shape[0] or width > image.shape[1]:
        at_scale = "" if scale == 1 else f" at scale {scale:g}"
        raise InputError(
            f"{name}{at_scale} has {width} x {height} pixels, the image only {image.shape[1]} x "
            f"{image.shape[0]}; take a smaller crop or scale"
        )


def _fitting(bank: list[Template], image_shape: tuple[int, ...]) -> list[Template]:
    """Leaves out what, turned, is larger than the image; unturned crops fit."""
    fitting = [
        template
        for template in bank
        if all(own <= all_ for own, all_ in zip(template.mask.shape, image_shape[:2], strict=True))
        and template.mask.any()
    ]
    if len(fitting) < len(bank):
        left_out = len(bank) - len(fitting)
        _log.warning("%d of %d turned crops do not fit into the image", left_out, len(bank))
    return fitting


def _best_scores(
    image: NDArray[Any], bank: list[Template], metric: Metric, on_step: Callable[[int, int], None]
) -> tuple[FloatArray, NDArray[np.intp]]:
    """Returns each pixel's best score as a template's centre, and which template has it.

    The centre of a template of h rows is its row h // 2. Where none fits the score is -inf.
    """
    value_range = _value_range(image)
    scores = np.full(image.shape[:2], -math.inf, np.float32)
    which = np.zeros(image.shape[:2], np.min_scalar_type(len(bank)))
    strips = list(_strips(image.shape, max(len(t.mask) for t in bank)))
    for done, (strip, (index, template)) in enumerate(
        (strip, pair) for strip in strips for pair in enumerate(bank)
    ):
        on_step(done, len(strips) * len(bank))
        height, width = template.mask.shape
        first = max(strip.start, height // 2)
        last = min(strip.stop, image.shape[0] - height + height // 2 + 1)
        if first >= last:
            continue
        rows = image[first - height // 2 : last - height // 2 + height - 1]
        if rows.dtype not in _COMPUTED:
            rows = rows.astype(np.float32)
        found = similarity(
            rows, template.pixels, template.mask, metric=metric, value_range=value_range
        )
        columns = slice(width // 2, width // 2 + found.shape[1])
        best, best_of = scores[first:last, columns], which[first:last, columns]
        better = found > best
        best[better], best_of[better] = found[better], index
    on_step(len(strips) * len(bank), len(strips) * len(bank))
    return scores, which


def _strips(image_shape: tuple[int, ...], template_height: int) -> Iterator[slice]:
    """Cuts the rows of an image; a strip is much higher than what templates add to it."""
    rows = max(_STRIP_PIXELS // image_shape[1], 4 * template_height)
    for top in range(0, image_shape[0], rows):
        yield slice(top, min(top + rows, image_shape[0]))


def _value_range(image: NDArray[Any]) -> float:
    """Largest difference that two values of the image can have."""
    return 255.0 if image.dtype == np.uint8 else float(image.max()) - float(image.min()) or 1.0


def _peaks(scores: FloatArray, *, radius: int) -> NDArray[np.intp]:
    """Returns the local maxima as (n, 2) rows and columns, one for each plateau."""
    around = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    highest = (scores == cv2.dilate(scores, around)) & np.isfinite(scores)
    _, plateaus = cv2.connectedComponents(highest.astype(np.uint8))
    places = np.argwhere(highest)
    _, first = np.unique(plateaus[highest], return_index=True)
    return np.asarray(places[first], np.intp)


def _place(row: int, column: int, score: float, template: Template) -> Place:
    height, width = template.mask.shape
    x, y = column - width // 2 + width / 2, row - height // 2 + height / 2
    angle = math.radians(template.angle_deg)
    across = np.array([math.cos(angle), math.sin(angle)]) * template.size_wh[0] / 2
    down = np.array([-math.sin(angle), math.cos(angle)]) * template.size_wh[1] / 2
    corners = np.add((x, y), [-across - down, across - down, across + down, down - across])
    return Place(
        x, y, float(score), template.reference, corners, template.angle_deg, template.scale
    )


def _without_overlaps(ranked: list[Place]) -> list[Place]:
    """Keeps the best of places that overlap (greedy non-maximum suppression)."""
    centres = np.array([(place.x, place.y) for place in ranked]).reshape(-1, 2)
    reach = np.array([np.hypot(*(p.polygon_xy[0] - (p.x, p.y))) for p in ranked])
    alive = np.ones(len(ranked), np.bool_)
    kept = []
    for index, place in enumerate(ranked):
        if not alive[index]:
            continue
        kept.append(place)
        rest = slice(index + 1, None)
        apart = np.square(centres[rest] - centres[index]).sum(axis=1)
        near = alive[rest] & (apart < np.square(reach[rest] + reach[index]))
        for other in index + 1 + np.flatnonzero(near):
            alive[other] = _overlap(place, ranked[other]) <= _MAX_OVERLAP
    return kept


def _overlap(one: Place, other: Place) -> float:
    """Intersection over union of two boxes."""
    first, second = (np.float32(place.polygon_xy - (one.x, one.y)) for place in (one, other))
    shared, _ = cv2.intersectConvexConvex(first, second)
    both = cv2.contourArea(first) + cv2.contourArea(second)
    return float(shared / (both - shared))


def _nobody_asks(done: int, total: int) -> None:
    """Takes the progress where nobody wants to hear of it."""
