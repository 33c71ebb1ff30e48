"""Accuracy of model files on a labelled split, and what a candidate loses against its origin.

Usage: python benchmarks/accuracy.py [DATA] [-m MODEL ...] [--pair FP32 CANDIDATE ...] [-o FILE]

Without DATA a dataset folder beside the checkout is taken (../shared/data/dubai); without one
there is nothing to measure and the run says so. A pair is measured on every installed backend.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from _record import write_result

from cclseg import Segmenter
from cclseg.dataset import open_dataset
from cclseg.evaluate import evaluate
from cclseg.files import file_sha256
from cclseg.models import bundled_models, find_model
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
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    if arguments.data == _DATA and not _DATA.is_dir():
        print(f"accuracy: nothing measured, there is no dataset folder {_DATA}")
        return
    dataset = open_dataset(arguments.data)
    dataset.check((arguments.split,))
    models = {}
    for name in arguments.model:
        with Segmenter(name, backend=_BACKENDS[0], threads=arguments.threads) as segmenter:
            report = evaluate(segmenter, dataset, arguments.split).report(dataset.class_names)
            spec = asdict(segmenter.spec)
        models[name] = {"sha256": file_sha256(find_model(name)), "spec": spec, "figures": report}
        print(f"{name}: mIoU {report['miou']:.4f}")
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


if __name__ == "__main__":
    main()
