"""Engines of TensorRT for RTX, built as real processes; no device is needed for that."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from native_libraries import native_plugin
from networks import brightest_band_spec, colour_patches, write_brightest_band, write_graph
from onnx import helper
from rtx import BuildProgram, needs_rtx

from cclseg.built_engines import was_built_here
from cclseg.cuda_devices import CudaDevice
from cclseg.engine_record import read_record
from cclseg.files import file_sha256
from cclseg.onnx_file import read_onnx, spec_of
from cclseg_export.engine.build import with_less_memory
from cclseg_export.engine.job import Job

pytestmark = needs_rtx

CHECKPOINTS = Path(__file__).parents[3] / "benchmarks" / "checkpoints"
IMAGE = {"images": [1, 3, 32, 32]}


@pytest.fixture
def program(tmp_path):
    return BuildProgram(tmp_path)


def only_engine(folder):
    """Names the files that a finished build leaves in its folder."""
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def refusal(program, model, *words):
    code, out, err = program.run(model, "-o", str(program.folder / "out" / "m.engine"), *words)
    assert (code, out) == (1, ""), err
    assert not [path for path in (program.folder / "out").glob("*") if path.is_file()]
    return err


def test_an_engine_is_written_with_its_sidecar_and_recorded(program, network, monkeypatch):
    engine = program.folder / "model.engine"
    code, out, err = program.run(network, "-o", engine)
    assert (code, err) == (0, "")
    assert out.startswith(f"{engine}  ")
    assert only_engine(program.folder) == ["model.engine", "model.engine.json"]
    record = read_record(engine)
    assert record.engine_sha256 == hashlib.sha256(engine.read_bytes()).hexdigest()
    assert record.source_sha256 == file_sha256(network)
    assert (record.library, record.precision, record.capability) == ("tensorrt-rtx", "fp32", None)
    assert record.spec == brightest_band_spec()
    assert record.shapes == {"images": ((1, 3, 32, 32), (1, 3, 32, 32), (8, 3, 32, 32))}
    monkeypatch.setenv("XDG_STATE_HOME", str(program.state))
    assert was_built_here(engine)
    assert list(program.temporary.iterdir()) == []


def test_the_report_says_what_was_built(program, network):
    report = program.report(
        network, "-o", str(program.folder / "m.engine"), "--workspace", "64MiB",
        "--optimization-level", "0", "--max", "2x3x32x32",
    )  # fmt: skip
    assert report["engine_bytes"] == (program.folder / "m.engine").stat().st_size
    assert (report["attempts"], report["workspace_bytes"]) == (1, 64 << 20)
    assert report["shapes"]["images"][2] == [2, 3, 32, 32]
    assert report["build_s"] > 0


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    """CCL-nano in floating point, from the checkpoint of the bundled model."""
    pytest.importorskip("torch")
    from cclseg_export.origin import load_origin
    from cclseg_export.to_onnx import attach_spec, save_model

    origin = load_origin(CHECKPOINTS / "ccl-nano.pt")
    model = origin.to_fp32(keep_operator=False)
    attach_spec(model, origin.spec)
    path = tmp_path_factory.mktemp("nano") / "ccl-nano.onnx"
    save_model(model, path)
    return path


def test_the_smaller_network_is_built_in_floating_point(program, nano):
    report = program.report(nano, "-o", str(program.folder / "m.engine"))
    assert (report["precision"], report["source"]) == ("fp32", "ccl-nano.onnx")


def test_it_is_built_in_int8_from_its_form_for_this_library(program, nano):
    emit = pytest.importorskip("cclseg_export.emit")
    from cclseg_export.calibrate import calibrate
    from cclseg_export.to_onnx import attach_spec

    spec = spec_of(nano, read_onnx(nano))
    images = [colour_patches(spec.input_hw, seed=seed)[..., ::-1] for seed in range(2)]
    tiles = [np.moveaxis((i - 127) / 128, 2, 0)[None].astype(np.float32) for i in images]
    model = onnx.load(nano)
    ranges = calibrate(model, tiles, spec=spec)
    quantized = emit.emit(model, ranges, target="tensorrt-rtx")
    attach_spec(quantized, dataclasses.replace(spec, precision="int8"))
    path = program.folder / "nano.onnx"
    onnx.save(quantized, path)
    report = program.report(path)
    assert report["precision"] == "int8"
    assert Path(report["engine"]) == program.folder / "nano.engine"


@pytest.fixture(scope="module")
def default_network(tmp_path_factory):
    """The default network with random weights, its correlations as nodes, in five forms."""
    pytest.importorskip("torch")
    from export_material import random_checkpoint

    from cclseg_export.calibrate import calibrate
    from cclseg_export.emit import emit
    from cclseg_export.to_onnx import attach_spec, to_onnx

    checkpoint = random_checkpoint("ccl-lite0", ("ground", "plants", "water"))
    model = to_onnx(checkpoint, keep_operator=True)
    tiles = [np.random.default_rng(0).normal(size=(1, 3, 64, 96)).astype(np.float32)]
    ranges = calibrate(model, tiles, spec=checkpoint.spec)
    folder = tmp_path_factory.mktemp("default")
    onnx.save(model, folder / "fp32.onnx")
    for target, half in itertools.product(("tensorrt", "tensorrt-rtx"), (False, True)):
        quantized = emit(model, ranges, target=target, half=half)
        attach_spec(quantized, dataclasses.replace(checkpoint.spec, precision="int8"))
        onnx.save(quantized, folder / f"{target}{'-half' if half else ''}.onnx")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "precision", "takes_plugin"),
    [
        ("fp32", "fp32", False),
        ("tensorrt-rtx", "int8", False),
        ("tensorrt-rtx-half", "int8", False),
        ("tensorrt", "int8", True),
        ("tensorrt-half", "int8", True),
    ],
)
def test_the_default_network_is_built(program, default_network, form, precision, takes_plugin):
    plugin = native_plugin()
    report = program.report(
        default_network / f"{form}.onnx", "-o", program.folder / "m.engine", "--plugin", plugin
    )
    assert report["precision"] == precision
    assert (report["plugin"] is not None) == takes_plugin


@pytest.mark.slow
def test_many_warnings_of_the_library_are_cut_on_the_terminal(program, default_network):
    plugin = native_plugin()
    model = default_network / "fp32.onnx"
    code, _, err = program.run(model, "-o", program.folder / "m.engine", "--plugin", plugin)
    assert code == 0
    assert "warnings more of the library; --json has all" in err
    assert len(err.splitlines()) <= 5


def test_the_bundled_int8_file_for_cpus_is_refused_with_the_way_to_one_that_fits(program):
    message = refusal(program, "ccl-lite0")
    assert "TensorRT for RTX cannot read" in message
    assert "quantised in another way" in message
    assert "--target tensorrt-rtx" in message
    assert "Cuda Runtime" not in message


def test_a_network_with_the_correlation_gets_the_plugin(program):
    operator = pytest.importorskip("cclseg_export.operator")
    plugin = native_plugin()
    model = operator.make_model((1, 8, 16, 16), radius=1)
    operator.name_plugin(model)
    path = program.folder / "correlation.onnx"
    path.write_bytes(model.SerializeToString())
    report = program.report(path, "--plugin", plugin)
    assert report["plugin"] == {
        "name": "LocalCorrelation", "version": "1", "sha256": file_sha256(plugin),
    }  # fmt: skip


def test_a_plugin_that_the_parser_leaves_aside_is_said_and_not_recorded(program):
    """This parser prefers the body in the file unless the node asks for a plugin."""
    operator = pytest.importorskip("cclseg_export.operator")
    plugin = native_plugin()
    path = program.folder / "m.onnx"
    path.write_bytes(operator.make_model((1, 8, 16, 16), radius=1).SerializeToString())
    code, _, err = program.run(path, "--plugin", plugin)
    assert code == 0
    assert "the plugin is not used" in err
    assert read_record(program.folder / "m.engine").plugin is None


def test_a_library_that_is_no_plugin_is_refused(program):
    operator = pytest.importorskip("cclseg_export.operator")
    model = operator.make_model((1, 8, 16, 16), radius=1)
    path = program.folder / "correlation.onnx"
    path.write_bytes(model.SerializeToString())
    wrong = program.folder / "plugin.so"
    wrong.write_bytes(b"no library")
    message = refusal(program, path, "--plugin", wrong)
    assert f"does not load the plugin {wrong}" in message
    assert "cclseg ops build --tensorrt" in message
    assert "there is no plugin" in refusal(program, path, "--plugin", program.folder / "absent.so")


def test_all_unknown_operators_are_named_before_the_build(program):
    nodes = [
        helper.make_node("Nonsense", ["images"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("DeformConv", ["b", "b", "b"], ["logits"]),
    ]
    model = write_graph(program.folder / "m.onnx", nodes, inputs=IMAGE, outputs={"logits": [1]})
    message = refusal(program, model)
    assert f"has no operator for these of {model}: Nonsense, DeformConv." in message


def test_too_little_workspace_says_to_allow_more(program, nano):
    message = refusal(program, nano, "--workspace", "1KiB")
    assert "no kernel for" in message
    assert "Allow more than 0.000976562 MiB with --workspace" in message


def test_a_cut_file_is_refused_before_the_library_sees_it(program, network):
    cut = program.folder / "cut.onnx"
    cut.write_bytes(network.read_bytes()[:-20])
    assert "cut.onnx is no whole ONNX file" in refusal(program, cut)


@pytest.mark.parametrize(
    "words", [["--version-compatible"], ["--dla", "0"], ["--hardware-compatible", "ampere-plus"]]
)
def test_options_that_the_library_does_not_have_are_refused(program, network, words):
    assert "TensorRT" in refusal(program, network, *words)


def test_a_full_disk_leaves_nothing_behind(program, nano):
    """A limit on the size of files: the build works, and writing the engine does not."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    folder = program.folder / "out"
    folder.mkdir()
    code, _, err = program.run(nano, "-o", folder / "m.engine", preexec_fn=limit)
    assert code == 1
    assert "the engine cannot be written: File too large; free space" in err
    assert list(folder.iterdir()) == []


def wait_for_worker(program, process):
    """Returns the id of the building process once it is there."""
    while process.poll() is None:
        if found := program.workers():
            return found[0]
        time.sleep(0.01)
    raise AssertionError(f"no building process: {process.communicate()}")


def wait_for_no_worker(program):
    """Waits for the building process to end: it sees only later that its program is gone."""
    deadline = time.monotonic() + 120  # only a hang takes so long
    while program.workers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert program.workers() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind_and_the_times_as_they_were(program, nano, number):
    folder = program.folder / "out"
    folder.mkdir()
    times = program.folder / "kernels.timing"
    times.write_bytes(b"times of many hours")
    engine = folder / "m.engine"
    with program.start(nano, "-o", engine, "--timing-cache", times) as process:
        wait_for_worker(program, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.strip().splitlines()[-1] == "interrupted"
    assert list(folder.iterdir()) == []
    assert times.read_bytes() == b"times of many hours"
    assert only_engine(program.folder) == ["kernels.timing"]
    assert list(program.temporary.iterdir()) == []
    wait_for_no_worker(program)


def test_the_builder_ends_with_a_program_that_is_killed(program, nano):
    folder = program.folder / "out"
    folder.mkdir()
    with program.start(nano, "-o", folder / "m.engine") as process:
        wait_for_worker(program, process)
        process.kill()
    wait_for_no_worker(program)
    assert list(folder.iterdir()) == []


def test_an_interrupted_build_keeps_the_engine_that_was_there(program, network, nano):
    engine = program.folder / "m.engine"
    assert program.run(network, "-o", engine)[0] == 0
    before = engine.read_bytes()
    with program.start(nano, "-o", engine) as process:
        wait_for_worker(program, process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert engine.read_bytes() == before
    assert read_record(engine).source == network.name


def test_measured_times_are_written_after_a_whole_build(program, network):
    times = program.folder / "kernels.timing"
    times.write_bytes(b"damaged")
    report = program.report(
        network, "-o", str(program.folder / "m.engine"), "--timing-cache", times
    )
    assert report["attempts"] == 1
    assert times.read_bytes() != b"damaged"
    assert len(times.read_bytes()) > 100


def test_a_build_that_is_killed_for_memory_is_tried_again_with_less(program, nano):
    """Killed as the kernel does it when a small device runs out of memory."""
    engine = program.folder / "m.engine"
    with program.start(nano, "-o", engine, "--json", "-", "--workspace", "2GiB") as process:
        os.kill(wait_for_worker(program, process), signal.SIGKILL)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    report = json.loads(out)
    assert (report["attempts"], report["workspace_bytes"]) == (2, 512 << 20)
    assert "memory ran out; trying again with 512 MiB of scratch memory" in err


def test_each_attempt_asks_for_less():
    job = Job(library="tensorrt", model="m", operators=(), engine="e", shapes={})
    device = CudaDevice("Orin Nano", (8, 7), 8 << 30)
    once = with_less_memory(job, device)
    twice = with_less_memory(once, device)
    assert (once.workspace_bytes, once.tactic_bytes, once.optimization_level) == (
        2 << 30,
        4 << 30,
        2,
    )
    assert (twice.workspace_bytes, twice.optimization_level) == (512 << 20, 1)
    assert with_less_memory(job, None).workspace_bytes == 1 << 30


def test_a_model_without_a_spec_is_built_and_says_so(program):
    model = write_brightest_band(program.folder / "foreign.onnx", metadata={})
    code, _, err = program.run(model)
    assert code == 0
    assert "give the spec when the engine is loaded" in err
    assert read_record(program.folder / "foreign.engine").spec is None
