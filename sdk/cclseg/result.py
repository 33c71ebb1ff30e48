"""What a segmented frame is: the mask, and what can be derived from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError, MissingDependencyError
from .image_files import write_image
from .polygons import Polygon, polygons_of
from .postprocess import confidence

if TYPE_CHECKING:
    from .frame import FloatArray, Frame, Image, Mask
    from .gpu.arrays import DeviceArray
    from .spec import ModelSpec

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra("cv2", extra="cpu", purpose="drawing masks") from error

MASK_SUFFIX = ".png"


class Segmentation:
    """The classes of one frame's pixels.

    Attributes:
        mask: (H, W) uint8 class ids at the frame's own size (uint16 beyond 255 classes);
            ``ignore_index`` of the model, usually 255, where there are no data.
        class_names: One name per class id.
        timing: Milliseconds spent per stage.
        device_mask: The mask in the memory of a GPU, for ``torch.from_dlpack`` and the like, where
            it was computed there; else None.
        frame: The frame, where it came from a source; None where the caller gave an image.
        age_ms: Milliseconds between the capture of the frame and the moment that a stream handed
            its result out; None outside streams.
        level: Name of the level of work that the frame was given, "full" without a budget.

    Example:
        >>> out = Segmenter("ccl-lite0")(image)  # doctest: +SKIP
        >>> out.fractions()["water"]  # doctest: +SKIP
        0.31
    """

    __slots__ = (
        "_confidence", "_find_confidence", "_given_logits", "_spec", "age_ms", "device_mask",
        "frame", "level", "mask", "timing",
    )  # fmt: skip

    def __init__(
        self,
        mask: Mask,
        logits: FloatArray | Callable[[], FloatArray],
        spec: ModelSpec,
        *,
        timing: Mapping[str, float] | None = None,
        frame: Frame | None = None,
        confidence: Callable[[], FloatArray] | None = None,
    ) -> None:
        self.mask = mask
        self.timing: dict[str, float] = dict(timing or {})
        self.frame = frame
        self.age_ms: float | None = None
        self.level = "full"
        self.device_mask: DeviceArray | None = None
        self._given_logits = logits
        self._spec = spec
        self._find_confidence = confidence
        self._confidence: FloatArray | None = None

    def __repr__(self) -> str:
        height, width = self.mask.shape
        shares = ", ".join(f"{name} {share:.1%}" for name, share in self.fractions().items())
        return f"<Segmentation {width} x {height}: {shares}>"

    @property
    def _logits(self) -> FloatArray:
        """(K, h, w) float32; fetched on first use where they lie on a GPU."""
        if callable(self._given_logits):
            self._given_logits = self._given_logits()
        return self._given_logits

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class id."""
        return self._spec.class_names

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """One (red, green, blue) colour per class id."""
        return self._spec.palette

    @property
    def ignore_index(self) -> int:
        """Class id of pixels without data."""
        return self._spec.ignore_index

    @property
    def logits(self) -> FloatArray:
        """(K, h, w) float32 scores at the network's output stride, tiles blended.

        Beyond the frame's size they are of mirrored pixels. Not to be changed: confidence is
        computed from them. A refinement leaves them as they are and changes mask and confidence.
        """
        return self._logits

    @property
    def confidence(self) -> FloatArray:
        """(H, W) float32 in [0, 1]: probability of each pixel's class; computed on first use."""
        if self._confidence is None and self._find_confidence is not None:
            self._confidence = self._find_confidence()
        if self._confidence is None:
            height, width = self.mask.shape
            self._confidence = confidence(
                self._logits, stride=self._spec.output_stride, size_hw=(height, width)
            )
        return self._confidence

    def fractions(self) -> dict[str, float]:
        """Returns the share of each class among the pixels that have one."""
        counts = [np.count_nonzero(self.mask == index) for index in range(len(self.class_names))]
        total = max(1, sum(counts))
        return {name: count / total for name, count in zip(self.class_names, counts, strict=True)}

    def overlay(self, frame: Image, alpha: float = 0.45) -> Image:
        """Returns the frame with the classes' colours laid over it and their borders drawn.

        Args:
            frame: (H, W, 3) uint8, BGR, of the mask's size.
            alpha: Opacity of the colours in 0..1; borders are opaque.

        Returns:
            (H, W, 3) uint8, BGR. Pixels without a class stay as they are.

        Raises:
            InputError: The frame is no such image, or alpha is out of range.
        """
        if frame.dtype != np.uint8 or frame.shape != (*self.mask.shape, 3):
            raise InputError(
                f"cannot draw on an image of {frame.shape} {frame.dtype}; expected "
                f"{(*self.mask.shape, 3)} uint8 (BGR), the frame that was segmented"
            )
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha={alpha}; expected an opacity in 0..1")
        classless = self.mask >= len(self.class_names)
        colours = self._colours()
        if classless.any():
            colours[classless] = frame[classless]
        blended = np.empty(frame.shape, np.uint8)
        cv2.addWeighted(frame, 1 - alpha, colours, alpha, 0, dst=blended)
        if alpha:
            cv2.copyTo(colours, self._borders(), blended)
        return blended

    def polygons(self, *, min_area_px: int = 1) -> list[Polygon]:
        """Returns the outline of every connected region, along the pixels' edges.

        Args:
            min_area_px: Regions with fewer pixels are left out.
        """
        return polygons_of(self.mask, self.class_names, min_area_px=min_area_px)

    def save(self, path: str | Path) -> None:
        """Writes the mask as a PNG of class ids, whole or not at all.

        One grey channel holds the ids as they are, so that every program reads the ids back
        (OpenCV would turn a colour table into colours). For people there is :meth:`overlay`.

        Args:
            path: Target, ending in .png.

        Raises:
            InputError: Another ending.
            SinkError: The file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() != MASK_SUFFIX:
            raise InputError(
                f"a mask is saved as {MASK_SUFFIX}, got {path.name}; for a picture write "
                "overlay(frame) with cv2.imwrite"
            )
        write_image(path, self.mask)

    def _colours(self) -> Image:
        """Returns each pixel's class colour, (H, W, 3) BGR."""
        if self.mask.dtype == np.uint8:
            table = np.zeros((256, 1, 3), np.uint8)
            table[: len(self.palette), 0] = np.asarray(self.palette, np.uint8)[:, ::-1]
            colours = np.empty((*self.mask.shape, 3), np.uint8)
            cv2.applyColorMap(self.mask, table, colours)
            return colours
        rows = np.zeros((1 << 16, 3), np.uint8)
        rows[: len(self.palette)] = np.asarray(self.palette, np.uint8)[:, ::-1]
        return rows[self.mask]

    def _borders(self) -> Image:
        """Returns 1 where the right or lower neighbour has another class, 0 elsewhere."""
        borders = np.zeros(self.mask.shape, np.bool_)
        np.not_equal(self.mask[:, 1:], self.mask[:, :-1], out=borders[:, :-1])
        borders[:-1] |= self.mask[1:] != self.mask[:-1]
        return borders.view(np.uint8)
