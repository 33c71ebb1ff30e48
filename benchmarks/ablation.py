"""Which modules pay: each choice of the CCL network and of the augmentation, over several seeds.

Usage: python benchmarks/ablation.py [DATA] [--model ccl-lite0] [--factors fusion up ...] [--every]

Every value of every factor is tried in place of the default, all else being equal; with --every,
every combination of all of them. A difference is taken seed by seed, because the seeds of two
candidates see the same crops. Accuracy is that of the network in floating point, latency that of
its INT8 file. The defaults are a campaign for a GPU or many days; --steps, --crop and --seeds make
it smaller, and --hours bounds it. Started again it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from _campaign import (
    Candidate,
    add_campaign_arguments,
    measured,
    median_ms,
    recipe_of,
    timed,
    trials_of,
)
from _record import write_result
from _tile_latency import BACKENDS

from cclseg.files import write_bytes
from cclseg_trainer.config import AugmentConfig
from cclseg_trainer.model_config import SWITCHES, choices_of
from cclseg_trainer.models import find_variant

_AUGMENTATION = "augmentation"
_PLAIN = AugmentConfig(
    scale=(1.0, 1.0), balanced_share=0, paste_share=0, photometric=0, blur_share=0, noise_share=0
)
_DEFAULT = AugmentConfig()
AUGMENTATIONS = {
    "none": _PLAIN,
    "zoom": replace(_PLAIN, scale=_DEFAULT.scale),
    "zoom+light": replace(_DEFAULT, balanced_share=0),
    "default": _DEFAULT,
    "default+paste": replace(_DEFAULT, paste_share=0.25),
    "default+mixing": replace(_DEFAULT, class_mix_share=0.2, mosaic_share=0.2),
    "default+virtual": replace(_DEFAULT, virtual_share=0.15),
}
"""Groups of changes, each with those before it up to the default. "zoom" includes turns and flips,
which all have; "light" is exposure, colour, blur and noise; the default draws rare classes more
often as well, "paste" copies objects of them into other crops."""

_HEADS = {"edge_levels": (1, 3), "tokens": (0, 16)}  # of training, whose values are numbers
_FACTORS = (*SWITCHES, *_HEADS, _AUGMENTATION)
_USUAL_FACTORS = ("fusion", "up", "activation", _AUGMENTATION)
_BASELINE = "baseline"


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_campaign_arguments(parser, work="runs/ablation")
    parser.add_argument("--model", default="ccl-lite0")
    parser.add_argument("--factors", nargs="+", choices=_FACTORS, default=_USUAL_FACTORS)
    parser.add_argument("--every", action="store_true", help="every combination")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        print(f"ablation: nothing measured, there is no dataset folder {arguments.data}")
        return
    candidates = list(_candidates(arguments))
    figures = measured(trials_of(candidates, arguments.seeds), arguments)
    names = [candidate.name for candidate in candidates if candidate.name in figures]
    # An augmentation changes no network: only one of those that are the same is timed.
    networks = {c.name: c.network for c in reversed(candidates) if c.name in names}
    stand_ins = {network: name for name, network in networks.items()}
    times = timed(list(stand_ins.values()), arguments)
    entries = {
        name: {
            "trials": figures[name],
            "parameters": figures[name][0]["parameters"],
            "macs": figures[name][0]["macs"],
            "timed_as": stand_ins[networks[name]],
        }
        for name in names
    }
    settings = {"model": arguments.model, "factors": arguments.factors}
    content = settings | {"candidates": entries, "timed": times}
    target = write_result("ablation", content, arguments.out)
    table = "\n".join([*_table(entries, times), ""])
    write_bytes(target.with_suffix(".md"), table.encode())
    print(table, target, sep="\n")


def _candidates(arguments: argparse.Namespace) -> Iterator[Candidate]:
    """Yields the baseline first."""
    network, recipe = find_variant(arguments.model), recipe_of(arguments)
    default = Candidate(_BASELINE, network, recipe)
    yield default
    values = {factor: _values(factor) for factor in arguments.factors}
    if arguments.every:
        choices: Iterator[tuple[tuple[str, Any], ...]] = itertools.product(
            *([(factor, value) for value in found] for factor, found in values.items())
        )
    else:
        choices = (((factor, value),) for factor, found in values.items() for value in found)
    for choice in choices:
        changed = default
        for factor, value in choice:
            changed = _with(changed, factor, value)
        if (changed.network, changed.recipe) != (network, recipe):
            yield replace(changed, name=" ".join(f"{f}={v}" for f, v in choice))


def _values(factor: str) -> tuple[Any, ...]:
    if factor == _AUGMENTATION:
        return tuple(AUGMENTATIONS)
    return _HEADS[factor] if factor in _HEADS else choices_of(factor)


def _with(candidate: Candidate, factor: str, value: Any) -> Candidate:  # noqa: ANN401
    if factor == _AUGMENTATION:
        recipe = replace(candidate.recipe, augment=AUGMENTATIONS[value])
        return replace(candidate, recipe=recipe)
    return replace(candidate, network=replace(candidate.network, **{factor: value}))


def _table(entries: dict[str, Any], times: dict[str, Any]) -> Iterator[str]:
    columns = [
        "candidate", "seeds", "mIoU val", "mIoU test", "against the baseline", "parameters, M",
        "GMAC", *(f"INT8 {name}" for name in BACKENDS), "mIoU test INT8, seed 1",
    ]  # fmt: skip
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    baseline = _by_seed(entries[_BASELINE]["trials"])
    reference = times[entries[_BASELINE]["timed_as"]]
    for name, entry in entries.items():
        by_seed = _by_seed(entry["trials"])
        differences = [by_seed[seed] - baseline[seed] for seed in by_seed if seed in baseline]
        timing = times[entry["timed_as"]]
        words = [
            name,
            str(len(by_seed)),
            _spread([trial["val"]["miou"] for trial in entry["trials"]]),
            _spread(list(by_seed.values())),
            "" if name == _BASELINE else _spread(differences, sign="+"),
            f"{entry['parameters'] / 1e6:.2f}",
            f"{entry['macs'] / 1e9:.2f}",
            *(f"{median_ms(timing, b) / median_ms(reference, b):.2f}x" for b in BACKENDS),
            f"{timing['int8']['miou']:.3f}" if entry["timed_as"] == name else "",
        ]
        yield f"| {' | '.join(words)} |"


def _by_seed(trials: list[dict[str, Any]]) -> dict[int, float]:
    return {trial["seed"]: trial["test"]["miou"] for trial in trials}


def _spread(values: list[float], sign: str = "") -> str:
    """Mean and standard deviation; the latter of one value does not exist."""
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.3f}{deviation}"


if __name__ == "__main__":
    main()
