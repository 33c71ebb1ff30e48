"""The potential function: what a labelling of an image costs, and how it becomes cheaper.

A network answers for blocks of pixels, and the borders of its classes are as coarse. The image
itself knows better where things end. The energy of a labelling x of the pixels adds up

    E(x) = sum_i -log p_i(x_i)                                    what the network says
         + sum_l lambda_l sum_s |s| theta_s min(1, N_s / (eta |s|))    superpixels s of scale l
         + lambda_e sum_(i,j) w_ij [x_i != x_j]                   neighbours i, j

with N_s the pixels of s that are not of its commonest class. A superpixel costs nothing where all
agree and never more than theta_s for each pixel, so that one which is wrong itself can be overruled
(robust P^n, Kohli et al., IJCV 2009). theta_s = exp(-variance / nu) of its colours is its quality:
one that an edge crosses counts less. Neighbours that look the same cost more to part,
w_ij = (exp(-|I_i - I_j|^2 / (2 <|I_i - I_j|^2>)) + w_0) / 4, relative to the mean over the image
(Boykov and Jolly, ICCV 2001), so that haze and exposure make no difference.

A few parallel steps of mean-field inference bring it down, each O(pixels x classes):

    Q_i(k) ~ exp(log p_i(k) - sum_l lambda_l theta_s min(1, (1 - Q_s(k)) / eta)
                 + lambda_e sum_j w_ij Q_j(k))                    Q_s: mean of Q over s, with i in s

Exported networks have no edge head, so edges are those of the image's colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError
from .postprocess import margins
from .superpixels import superpixels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .frame import FloatArray, Image

    Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class PotentialParameters:
    """The scalars of the energy.

    Attributes:
        sides_px: Sides of the superpixels in pixels of the frame, one scale each.
        region_weights: lambda of each scale.
        compactness: See :func:`cclseg.superpixels.superpixels`.
        truncation: eta, the share of a superpixel that costs as much as all of it.
        variance: nu in squared grey levels, mean over the bands: so inhomogeneous a superpixel
            counts 1 / e.
        edge_weight: lambda_e.
        least_edge: w_0, what parting neighbours costs however different they look.
        steps: Of the inference.

    Raises:
        InputError: A value is out of range.
    """

    sides_px: tuple[int, ...] = (16, 32)
    region_weights: tuple[float, ...] = (0.5, 0.5)
    compactness: float = 20.0
    truncation: float = 1.0
    variance: float = 3000.0
    edge_weight: float = 0.25
    least_edge: float = 0.1
    steps: int = 3

    def __post_init__(self) -> None:
        if len(self.sides_px) != len(self.region_weights):
            raise InputError(
                f"{len(self.sides_px)} sides_px and {len(self.region_weights)} region_weights; "
                "expected one weight for each scale"
            )
        weights = (*self.region_weights, self.edge_weight, self.least_edge, self.steps)
        if min(self.truncation, self.variance, self.compactness) <= 0 or min(weights) < 0:
            raise InputError(
                f"{self}; expected truncation, variance and compactness above 0, and no weight "
                "or number of steps below"
            )
        if min(self.sides_px, default=2) < 2:
            raise InputError(f"sides_px={self.sides_px}; expected 2 pixels or more")


class Potential:
    """The energy of one image's labellings, and the state of the inference.

    Args:
        image: (H, W, C) uint8, any number of bands in any order.
        logits: (K, H, W) float32, finite.
        parameters: Of the energy; its ``sides_px`` are in pixels of this image.
        margin: Pixels whose two likeliest classes are farther apart in probability stay as the
            network says; None to change all.

    Attributes:
        scores: (K, H, W) float32, logits of the state.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> image = np.zeros((32, 32, 3), np.uint8)
        >>> image[:, 13:] = 200
        >>> logits = np.stack([image[:, :, 0] < 99, image[:, :, 0] > 99]).astype(np.float32)
        >>> potential = Potential(image, logits + rng.normal(size=logits.shape).astype(np.float32))
        >>> before = potential.energy()
        >>> potential.descend()
        >>> potential.energy() < before
        True
    """

    def __init__(
        self,
        image: Image,
        logits: FloatArray,
        parameters: PotentialParameters | None = None,
        *,
        margin: float | None = None,
    ) -> None:
        self._parameters = parameters or PotentialParameters()
        self.scores = np.array(logits, order="C")
        self._unary = logits.reshape(len(logits), -1)
        self._state = _softmax(self._unary)
        self._edges = _edge_weights(image, self._parameters)
        every = np.arange(self._unary.shape[1])
        self._open = every if margin is None else every[margins(self._unary) <= margin]
        if not self._parameters.steps or not (image != image[:1, :1]).any():
            self._open = every[:0]  # an image of one colour does not say where things end
        self._regions = list(self._scales(image)) if self._open.size else []

    def _scales(self, image: Image) -> Iterator[_Regions]:
        parameters = self._parameters
        for side, weight in zip(parameters.sides_px, parameters.region_weights, strict=True):
            if weight:
                ids = superpixels(image, side=side, compactness=parameters.compactness)
                yield _Regions.of(image, ids.ravel(), weight, parameters.variance)

    def descend(self) -> None:
        """Goes all steps of the inference."""
        for _ in range(self._parameters.steps):
            self.step()

    def step(self) -> None:
        """Goes one step of the inference, for all pixels at once."""
        places = self._open
        # take() copies columns several times as fast as indexing does; a step over the image's
        # edge wraps around to some pixel, with weight 0.
        field = self._unary.take(places, axis=1)
        for regions in self._regions:
            off = (1 - regions.means(self._state)) / self._parameters.truncation
            penalty = (regions.quality * np.minimum(1, off)).astype(np.float32)
            field -= penalty.take(regions.ids.take(places), axis=1)
        for weights, shift in self._edges:
            back = places - shift
            field += weights.take(places) * self._state.take(places + shift, axis=1, mode="wrap")
            field += weights.take(back, mode="wrap") * self._state.take(back, axis=1, mode="wrap")
        scores = self.scores.reshape(self._unary.shape)
        for plane, changed in zip((*self._state, *scores), (*_softmax(field), *field), strict=True):
            plane[places] = changed

    def energy(self) -> float:
        """Returns E of the likeliest class of every pixel, in nats per pixel."""
        labels = self._state.argmax(axis=0)
        lower = (self._unary - self._unary.max(axis=0)).astype(np.float64)
        surprise = np.log(np.exp(lower).sum(axis=0)) - lower[labels, np.arange(labels.size)]
        total = surprise.sum()
        one_hot = labels == np.arange(len(self._state))[:, None]
        for regions in self._regions:
            off = 1 - regions.means(one_hot).max(axis=0)
            cost = regions.quality * np.minimum(1, off / self._parameters.truncation)
            total += (regions.pixels * cost).sum()
        for weights, shift in self._edges:
            total += weights[labels != np.roll(labels, -shift)].sum()
        return float(total / labels.size)


@dataclass(frozen=True, slots=True)
class _Regions:
    """The superpixels of one scale.

    Attributes:
        ids: (N,) superpixel of each pixel.
        pixels: (S,) pixels of each superpixel.
        quality: (S,) lambda * theta.
    """

    ids: Places
    pixels: Places
    quality: NDArray[np.float64]

    @classmethod
    def of(cls, image: Image, ids: Places, weight: float, variance: float) -> _Regions:
        """Counts superpixels and judges them by the variance of their colours."""
        regions = cls(ids, np.bincount(ids), np.empty(0))
        bands = image.reshape(-1, image.shape[2]).T.astype(np.float64)
        spread = (regions.means(bands**2) - regions.means(bands) ** 2).mean(axis=0)
        return cls(ids, regions.pixels, weight * np.exp(-spread / variance))

    def means(self, planes: NDArray[np.generic]) -> NDArray[np.float64]:
        """Returns the means of planes (P, N) over each superpixel, (P, S)."""
        sums = [np.bincount(self.ids, plane, len(self.pixels)) for plane in planes]
        return np.asarray(np.stack(sums) / np.maximum(self.pixels, 1))


def _edge_weights(image: Image, parameters: PotentialParameters) -> list[tuple[FloatArray, int]]:
    """Returns what parting each pixel from its right, and from its lower neighbour costs.

    It is 0 where there is no such neighbour, and everywhere in an image of one colour.

    Returns:
        Twice (H * W,) float32 and how many places on the neighbour is.
    """
    values = image.astype(np.float32)
    across = ((values[:, 1:] - values[:, :-1]) ** 2).mean(axis=2)
    down = ((values[1:] - values[:-1]) ** 2).mean(axis=2)
    right, below = (np.zeros(image.shape[:2], np.float32) for _ in range(2))
    mean = (across.sum() + down.sum()) / max(1, across.size + down.size)
    if mean > 0:
        for squares, weights in ((across, right[:, :-1]), (down, below[:-1])):
            contrast = np.exp(squares / (-2 * mean)) + parameters.least_edge
            weights[:] = parameters.edge_weight / 4 * contrast
    return [(right.ravel(), 1), (below.ravel(), image.shape[1])]


def _softmax(scores: FloatArray) -> FloatArray:
    powers: FloatArray = scores - scores.max(axis=0)
    np.exp(powers, out=powers)
    powers /= powers.sum(axis=0)
    return powers
