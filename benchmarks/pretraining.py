"""Whether pretraining without labels pays where labels are few.

Usage: python benchmarks/pretraining.py [DATA] [--labelled 4] [--seeds 3] [-o FILE]

For each seed a few images of the split "train" keep their labels. The same network is trained on
them from random weights, from weights pretrained on all images of the split, and from random
weights for as many steps as pretraining and training take together. Figures are of the split
"test". Without DATA a dataset folder beside the checkout is taken (../shared/data/dubai); without
one there is nothing to measure and the run says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _record import write_result

from cclseg.dataset import UNLABELLED, DatasetFolder, open_dataset
from cclseg_trainer.checkpoint import load_checkpoint
from cclseg_trainer.config import PRETRAINING_RECIPE, TrainConfig
from cclseg_trainer.models import find_variant
from cclseg_trainer.pretrain import pretrain
from cclseg_trainer.train import train, validate

_DATA = Path(__file__).parents[2] / "shared" / "data" / "dubai"


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=_DATA)
    parser.add_argument("--model", default="ccl-nano")
    parser.add_argument("--labelled", type=int, default=4, help="images that keep their labels")
    parser.add_argument("--validated", type=int, default=3, help="images to choose weights by")
    parser.add_argument("--pretrain-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    if arguments.data == _DATA and not _DATA.is_dir():
        print(f"pretraining: nothing measured, there is no dataset folder {_DATA}")
        return
    torch.set_num_threads(arguments.threads)
    data = open_dataset(arguments.data)
    runs = []
    for seed in range(1, arguments.seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(_one_seed(data, arguments, seed, Path(folder)))
    arms = runs[0]["miou"]
    means = {arm: float(np.mean([run["miou"][arm] for run in runs])) for arm in arms}
    settings = {k: v for k, v in vars(arguments).items() if k not in ("data", "out")}
    content = {"data": data.root.resolve().name, "settings": settings}
    print(", ".join(f"{arm}: mIoU {mean:.4f}" for arm, mean in means.items()))
    print(write_result("pretraining", content | {"mean_miou": means, "runs": runs}, arguments.out))


def _one_seed(
    data: DatasetFolder, arguments: argparse.Namespace, seed: int, folder: Path
) -> dict[str, Any]:
    """Trains all arms on the images of one draw."""
    few = _with_few_labels(data, arguments, seed, folder / "data")
    model = find_variant(arguments.model)
    common = {"batch_size": arguments.batch_size, "crop_px": arguments.crop, "seed": seed}
    start = pretrain(
        [few.root],
        model,
        dataclasses.replace(
            PRETRAINING_RECIPE,
            steps=arguments.pretrain_steps,
            val_every=arguments.pretrain_steps,
            pretrained=False,
            **common,
        ),
        folder / "pretraining",
    )
    print(f"seed {seed}: {start.report}", flush=True)
    together = arguments.steps + arguments.pretrain_steps
    arms = {
        "random weights": (arguments.steps, None),
        "pretrained": (arguments.steps, start.best),
        "random weights, as many steps as both": (together, None),
    }
    figures = {}
    for arm, (steps, origin) in arms.items():
        config = TrainConfig(steps=steps, val_every=max(steps // 3, 1), pretrained=False, **common)
        best = train(few, model, config, folder / arm, start=origin).best
        checkpoint = load_checkpoint(best)
        report = validate(checkpoint.build(), checkpoint.spec, few, "test")
        figures[arm] = report["miou"]
        print(f"seed {seed}, {arm}: mIoU {report['miou']:.4f}", flush=True)
    return {
        "seed": seed,
        "labelled": few.splits["train"],
        "pretraining": start.report,
        "miou": figures,
    }


def _with_few_labels(
    data: DatasetFolder, arguments: argparse.Namespace, seed: int, folder: Path
) -> DatasetFolder:
    """Makes a dataset folder in which few images of the split "train" have labels."""
    folder.mkdir()
    for name in ("images", "masks", "classes.json"):
        (folder / name).symlink_to(data.root.resolve() / name)
    stems = np.random.default_rng(seed).permutation(data.stems("train")).tolist()
    splits = {
        "train": stems[: arguments.labelled],
        UNLABELLED: stems[arguments.labelled :],
        "val": data.stems("val")[: arguments.validated],
        "test": data.stems("test"),
    }
    (folder / "splits.json").write_text(json.dumps(splits))
    return open_dataset(folder)


if __name__ == "__main__":
    main()
