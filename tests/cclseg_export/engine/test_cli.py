"""The verb without TensorRT: other targets, wrong usage, what is missing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from networks import block_means, brightest_band_spec

from cclseg.cli.app import run
from cclseg.tensorrt_library import find_module


def test_openvino_gets_its_own_form_and_runs_it(network, tmp_path, capsys):
    pytest.importorskip("openvino")
    from cclseg.backends.choose import open_backend

    target = tmp_path / "model.xml"
    assert run(["build", str(network), "--target", "openvino", "-o", str(target)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    assert capsys.readouterr().out.count(" MB\n") == 2
    images = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    with open_backend(target) as backend:
        assert backend.spec == brightest_band_spec()
        np.testing.assert_allclose(backend.infer(images), block_means(images), atol=1e-5)


def test_the_form_of_openvino_stands_beside_its_model(network, tmp_path, capsys):
    pytest.importorskip("openvino")
    model = tmp_path / "model.onnx"
    model.write_bytes(network.read_bytes())
    assert run(["build", str(model), "--target", "openvino", "--json", "-"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert [file["path"] for file in files] == [
        str(tmp_path / "model.xml"), str(tmp_path / "model.bin"),
    ]  # fmt: skip


def test_openvino_cannot_carry_the_correlation_as_one_node(tmp_path, capsys):
    pytest.importorskip("openvino")
    operator = pytest.importorskip("cclseg_export.operator")
    model = tmp_path / "model.onnx"
    model.write_bytes(operator.make_model((1, 8, 16, 16), radius=1).SerializeToString())
    assert run(["build", str(model), "--target", "openvino"]) == 1
    assert "--target openvino" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [(["--target", "tensort"], "'tensort' is not one of 'tensorrt'"),
     (["--workspace", "lots"], "got 'lots'; expected an amount of memory"),
     (["--opt", "1,3,32,32"], "expected a shape such as"),
     (["--target", "openvino", "--workspace", "1GiB"], "--workspace is for TensorRT"),
     (["--optimization-level", "9"], "0<=x<=5")],
)  # fmt: skip
def test_wrong_usage(network, words, reason, capsys):
    assert run(["build", str(network), *words]) == 2
    assert reason in capsys.readouterr().err


def test_a_missing_library_is_named_with_what_is_here(network, capsys):
    if find_module("tensorrt") is not None:
        pytest.skip("TensorRT is installed")
    assert run(["build", str(network)]) == 1
    message = capsys.readouterr().err
    assert "cclseg[trt]" in message
    assert ("--target tensorrt-rtx" in message) == (find_module("tensorrt-rtx") is not None)
