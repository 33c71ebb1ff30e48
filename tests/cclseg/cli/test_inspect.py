"""The verb inspect."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING

import pytest
from engines import write_engine
from networks import brightest_band_spec, write_brightest_band

from cclseg.spec import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Cclseg


def test_it_says_what_a_model_is(cclseg: Cclseg, tiny_model: Path) -> None:
    result = cclseg("inspect", str(tiny_model))
    assert result.returncode == 0
    lines = {line.split("  ")[0]: line for line in result.stdout.splitlines()}
    assert lines["model"].split()[1:] == ["brightest-band,", "version", "1,", "fp32"]
    assert lines["input"].split(maxsplit=1)[1].startswith("images (?, 3, 32, 32) float32")
    assert lines["parity miou_drop"].split()[-1] == "0.25"
    assert hashlib.sha256(tiny_model.read_bytes()).hexdigest() in result.stdout
    assert "#c81e1e" in result.stdout


def test_parity_stands_in_one_line_a_backend(cclseg: Cclseg, tmp_path: Path) -> None:
    figures = {"miou_reference": 0.59, "miou": 0.5862, "agreement": 0.981, "latency_ratio": 2.1}
    parity = {"kept_float": ["a", "b"], "backends": {"openvino": figures, "strange": [1]}}
    path = write_brightest_band(tmp_path / "net.onnx", brightest_band_spec(parity=parity))
    text = " ".join(cclseg("inspect", str(path)).stdout.split())
    assert "parity kept_float a, b" in text
    assert (
        "parity openvino mIoU 0.5862 (-0.38 points), 98.10% of pixels agree, 2.10 x as fast as fp32"
        in text
    )
    assert "parity strange [1]" in text


def test_its_json_holds_spec_and_graph(cclseg: Cclseg, tiny_model: Path) -> None:
    content = json.loads(cclseg("inspect", str(tiny_model), "--json", "-").stdout)
    assert content["spec"]["class_names"] == ["redest", "greenest", "blueest"]
    assert content["graph"]["op_counts"] == {"AveragePool": 1}
    assert content["graph"]["inputs"][0]["shape"] == [None, 3, 32, 32]
    assert content["bytes"] == tiny_model.stat().st_size
    assert content["spec_problem"] is None


def test_a_foreign_model_is_shown_with_the_reason_why_it_does_not_run(
    cclseg: Cclseg, foreign_model: Path
) -> None:
    result = cclseg("inspect", str(foreign_model), "--json", "-")
    assert result.returncode == 0
    content = json.loads(result.stdout)
    assert content["spec"] is None
    assert "does not say what its classes are" in content["spec_problem"]
    assert content["graph"]["op_counts"] == {"AveragePool": 1}


def test_a_model_cut_in_half_is_an_error_that_names_it(
    cclseg: Cclseg, tiny_model: Path, tmp_path: Path
) -> None:
    whole = tiny_model.read_bytes()
    half = tmp_path / "half.onnx"
    half.write_bytes(whole[: len(whole) // 2])
    result = cclseg("inspect", str(half))
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "half.onnx" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_checkpoint_is_read_by_the_plug_in_of_the_trainer(cclseg: Cclseg, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from cclseg_trainer.checkpoint import Checkpoint
    from cclseg_trainer.config import TrainConfig
    from cclseg_trainer.models import VARIANTS, CCLNet

    shape = dataclasses.replace(VARIANTS["ccl-nano"], num_classes=2)
    checkpoint = Checkpoint(
        model_config=shape,
        train_config=TrainConfig(),
        spec=ModelSpec(name="ccl-nano", class_names=("dry", "wet"), input_hw=(64, 64)),
        weights=CCLNet(shape).state_dict(),
        step=0,
        metrics={},
    )
    checkpoint.save(tmp_path / "best.pt")
    content = json.loads(cclseg("inspect", str(tmp_path / "best.pt"), "--json", "-").stdout)
    assert content["spec"]["class_names"] == ["dry", "wet"]
    assert content["graph"] is None


def test_a_name_that_is_no_model_is_an_error(cclseg: Cclseg) -> None:
    result = cclseg("inspect", "ccl-lite")
    assert result.returncode == 1
    assert result.stderr.startswith("error: no model 'ccl-lite'")


def test_an_engine_is_described_by_its_sidecar(cclseg: Cclseg, tmp_path: Path) -> None:
    engine = write_engine(tmp_path)
    result = cclseg("inspect", str(engine))
    assert result.returncode == 0, result.stderr
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if "  " in line)
    assert "tensorrt 10.3.0, int8" in result.stdout
    assert "compute capability 8.7, Orin" in result.stdout
    assert "1x3x32x32 to 4x3x32x32, best at 1x3x32x32" in result.stdout
    assert lines["model"].split()[0] == "brightest-band,"
    engine.write_bytes(engine.read_bytes()[:-1])
    problems = json.loads(cclseg("inspect", str(engine), "--json", "-").stdout)["engine"][
        "problems"
    ]
    assert "cut off" in problems[0]


def test_an_engine_without_its_sidecar_is_refused(cclseg: Cclseg, tmp_path: Path) -> None:
    engine = write_engine(tmp_path)
    engine.with_name("model.engine.json").unlink()
    result = cclseg("inspect", str(engine))
    assert result.returncode == 1
    assert "has no sidecar" in result.stderr
