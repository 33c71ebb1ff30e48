"""Accuracy of model files on a labelled split, and what a candidate loses against its origin.

Usage: python benchmarks/accuracy.py [DATA] [-m MODEL ...] [--tta none flips d4]
           [--pair FP32 CANDIDATE ...] [-o FILE]

Without DATA a dataset folder beside the checkout is taken (../shared/data/dubai); without one
there is nothing to measure and the run says so. A pair is measured on every installed backend.
With several --tta each model is measured with each of them, and its time recorded.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from _record import write_result

from cclseg import Segmentation, Segmenter
from cclseg.dataset import DatasetFolder, Sample, open_dataset
from cclseg.evaluate import evaluate
from cclseg.files import file_sha256
from cclseg.metrics import Calibration
from cclseg.models import bundled_models, find_model
from cclseg.symmetries import SYMMETRIES, Tta
from cclseg_export.parity import compare

_DATA = Path(__file__).parents[2] / "shared" / "data" / "dubai"
_BACKENDS = ("onnxruntime", "openvino")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=_DATA)
    parser.add_argument("-m", "--model", nargs="*", default=sorted(bundled_models()))
    parser.add_argument("--pair", nargs=2, type=Path, action="append", default=[])
    parser.add_argument("--split", default="test")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tta", nargs="+", choices=tuple(SYMMETRIES), default=["none"])
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    if arguments.data == _DATA and not _DATA.is_dir():
        print(f"accuracy: nothing measured, there is no dataset folder {_DATA}")
        return
    dataset = open_dataset(arguments.data)
    dataset.check((arguments.split,))
    models = {}
    for name in arguments.model:
        for tta in arguments.tta:
            key = name if tta == "none" else f"{name}, {tta}"
            models[key] = _measured(name, dataset, arguments.split, arguments.threads, tta)
            print(
                f"{key}: mIoU {models[key]['figures']['miou']:.4f}, calibration error "
                f"{models[key]['calibration_error']:.4f}, network {models[key]['infer_s']:.1f} s"
            )
    pairs = [
        {
            "reference_sha256": file_sha256(reference),
            "candidate_sha256": file_sha256(candidate),
            "candidate": candidate.name,
            "parity": compare(
                reference,
                candidate,
                dataset,
                arguments.split,
                backends=_BACKENDS,
                threads=arguments.threads,
            ),
        }
        for reference, candidate in arguments.pair
    ]
    content = {"data": dataset.root.resolve().name, "split": arguments.split}
    print(write_result("accuracy", content | {"models": models, "pairs": pairs}, arguments.out))


def _measured(
    name: str, dataset: DatasetFolder, split: str, threads: int, tta: Tta
) -> dict[str, Any]:
    """Returns the figures of a model, and the seconds that its network took in all."""
    calibration = Calibration(ignore_index=dataset.ignore_index)
    infer_ms = []

    def note(sample: Sample, result: Segmentation) -> None:
        calibration.update(result.mask, result.confidence, sample.mask)
        infer_ms.append(result.timing["infer"])

    with Segmenter(name, backend=_BACKENDS[0], threads=threads, tta=tta) as segmenter:
        matrix = evaluate(segmenter, dataset, split, on_result=note)
        spec = asdict(segmenter.spec)
    return {
        "sha256": file_sha256(find_model(name)),
        "spec": spec,
        "tta": tta,
        "figures": matrix.report(dataset.class_names),
        "calibration_error": calibration.error,
        "infer_s": sum(infer_ms) / 1000,
    }


if __name__ == "__main__":
    main()
