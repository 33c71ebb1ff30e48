"""Whether refinement makes masks better, where their borders lie, and at what cost.

Usage: python benchmarks/refine.py [DATA] [-m MODEL ...] [--split test] [--flights SEED ...]
           [--frames 6] [--pictures FOLDER] [-o FILE]

Without DATA a dataset folder beside the checkout is taken (../shared/data/dubai), where there is
one. Virtual flights have truth that is exact to the pixel, labels drawn by people have not. The
network runs once for each frame, and its logits are refined in every way: "enlarged" is "full"
without a single step, so what cubic instead of bilinear enlargement brings by itself. Refinement
runs in one thread, "ms per megapixel" are those of all that comes after the network. The defaults
of the energy were chosen on the split "val" of the Dubai data, with ccl-lite0.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import cv2
import numpy as np
from _record import percentiles, write_result

from cclseg import Segmenter
from cclseg.dataset import DatasetFolder, open_dataset
from cclseg.evaluate import check_classes
from cclseg.files import file_sha256
from cclseg.metrics import Calibration, ConfusionMatrix
from cclseg.models import bundled_models, find_model
from cclseg.panels import coloured, photograph
from cclseg.postprocess import class_ids, confidence
from cclseg.potential import PotentialParameters
from cclseg.refinement import UNSURE_MARGIN, Refiner
from cclseg.virtual import VirtualFlight

if TYPE_CHECKING:
    from cclseg.frame import FloatArray, Image, Mask
    from cclseg.spec import ModelSpec

_DATA = Path(__file__).parents[2] / "shared" / "data" / "dubai"
_SECONDS_BETWEEN = 4.0  # so that frames of a flight have little ground in common

Labelled: TypeAlias = "tuple[Image, Mask]"
"""(H, W, C) uint8 in the order of the model's bands, and (H, W) true class ids."""


class Mode:
    """One way to come from logits to classes, and how well it goes.

    Attributes:
        mask: (H, W) that of the last frame.
    """

    def __init__(self, refiner: Refiner | None, spec: ModelSpec) -> None:
        self._refiner, self._spec = refiner, spec
        self._matrix = ConfusionMatrix(spec.num_classes)
        self._calibration = Calibration()
        self._ms: list[float] = []
        self._megapixels: list[float] = []
        self.mask: Mask = np.empty((0, 0), np.uint8)

    def run(self, image: Image, logits: FloatArray, truth: Mask) -> None:
        """Names the classes of a frame and compares them with the truth."""
        size_hw = truth.shape[0], truth.shape[1]
        start_ns = time.perf_counter_ns()
        scores, stride = logits, self._spec.output_stride
        if self._refiner is not None:
            scores, stride = self._refiner.refined(image, logits)
        self.mask = class_ids(scores, stride=stride, size_hw=size_hw)
        self._ms.append((time.perf_counter_ns() - start_ns) / 1e6)
        self._megapixels.append(truth.size / 1e6)
        self._matrix.update(self.mask, truth)
        sure = confidence(scores, stride=stride, size_hw=size_hw)
        self._calibration.update(self.mask, sure, truth)

    def report(self) -> dict[str, Any]:
        """Returns the figures and the times of all frames."""
        per_megapixel = np.divide(self._ms, self._megapixels)
        return {
            "figures": self._matrix.report(self._spec.class_names),
            "calibration_error": self._calibration.error,
            "samples_ms": self._ms,
            "megapixels": self._megapixels,
            "ms_per_megapixel": percentiles(per_megapixel),
        }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=_DATA)
    parser.add_argument("-m", "--model", nargs="*", default=sorted(bundled_models()))
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=int, help="the first so many of the split alone")
    parser.add_argument("--threads", type=int, default=2, help="of the network")
    parser.add_argument("--flights", nargs="*", type=int, default=[3, 4], metavar="SEED")
    parser.add_argument("--frames", type=int, default=6, help="of each flight")
    parser.add_argument("--pictures", type=Path, help="folder for masks before and after")
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    dataset = None
    if arguments.data != _DATA or _DATA.is_dir():
        dataset = open_dataset(arguments.data)
        dataset.check((arguments.split,))
    else:
        print(f"refine: no labelled data, there is no dataset folder {_DATA}")
    if arguments.pictures is not None:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
    cases = []
    for model in arguments.model:
        with Segmenter(model, backend="onnxruntime", threads=arguments.threads) as segmenter:
            for name, frames in _cases(arguments, segmenter, dataset):
                pictures = arguments.pictures
                if pictures is not None:
                    pictures /= f"{Path(model).stem} {name}".replace(" ", "_")
                case = {"model": model, "sha256": file_sha256(find_model(model)), "case": name}
                cases.append(case | {"modes": _measured(segmenter, frames, pictures)})
                _print(cases[-1])
    settings = {
        "parameters": asdict(PotentialParameters()),
        "fast_margin": UNSURE_MARGIN,
        "split": arguments.split,
    }
    print(write_result("refine", settings | {"cases": cases}, arguments.out))


def _cases(
    arguments: argparse.Namespace, segmenter: Segmenter, dataset: DatasetFolder | None
) -> Iterator[tuple[str, Iterator[Labelled]]]:
    if dataset is not None:
        check_classes(segmenter.spec, dataset)
        stems = dataset.stems(arguments.split)[: arguments.images]
        yield f"{dataset.root.resolve().name} {arguments.split}", _photographs(dataset, stems)
    for seed in arguments.flights:
        flight = VirtualFlight(seed, frames=arguments.frames, interval_s=_SECONDS_BETWEEN)
        yield f"flight {seed}", ((each.image[:, :, ::-1], each.mask) for each in flight)


def _photographs(dataset: DatasetFolder, stems: tuple[str, ...]) -> Iterator[Labelled]:
    for stem in stems:
        sample = dataset.load(stem)
        yield sample.image, sample.mask


def _measured(
    segmenter: Segmenter, frames: Iterator[Labelled], pictures: Path | None
) -> dict[str, Any]:
    """Refines the results of all frames in every way."""
    spec = segmenter.spec
    stride, bare = spec.output_stride, PotentialParameters(steps=0)
    modes = {
        "off": Mode(None, spec),
        "enlarged": Mode(Refiner("full", stride=stride, parameters=bare), spec),
        "fast": Mode(Refiner("fast", stride=stride), spec),
        "full": Mode(Refiner("full", stride=stride), spec),
    }
    for index, (image, truth) in enumerate(frames):
        logits = segmenter(image, channels="bands").logits
        for mode in modes.values():
            mode.run(image, logits, truth)
        if pictures is not None:
            masks = [truth, *(mode.mask for mode in modes.values())]
            panels = [photograph(image), *(coloured(mask, spec.palette) for mask in masks)]
            cv2.imwrite(f"{pictures}_{index}.png", np.hstack(panels))
    return {name: mode.report() for name, mode in modes.items()}


def _print(case: dict[str, Any]) -> None:
    for name, mode in case["modes"].items():
        figures = mode["figures"]
        print(
            f"{case['model']:10} {case['case']:12} {name:9} mIoU {figures['miou']:.4f}  boundary F "
            f"{figures['boundary_f']:.4f}  calibration error {mode['calibration_error']:.4f}  "
            f"{mode['ms_per_megapixel']['p50']:.0f} ms per megapixel",
            flush=True,
        )


if __name__ == "__main__":
    main()
