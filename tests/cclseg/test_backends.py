"""Each backend against the contract, bad files, and the choice among them."""

import logging
import subprocess
import sys

import numpy as np
import onnx
import pytest
from contracts import BackendContract
from native_libraries import FOLDER, native_library
from networks import (
    block_means,
    brightest_band_spec,
    write_brightest_band,
    write_graph,
)
from onnx import helper

from cclseg.backends import choose
from cclseg.backends.choose import backend_names, load_backend, open_backend
from cclseg.backends.onnx_runtime import OnnxRuntimeBackend
from cclseg.backends.open_vino import OpenVinoBackend
from cclseg.errors import BackendError, InputError, SpecError
from cclseg_export.operator import attach_function

BOTH = pytest.mark.parametrize("backend_class", [OnnxRuntimeBackend, OpenVinoBackend])


class TestOnnxRuntime(BackendContract):
    @pytest.fixture
    def backend(self, network):
        return OnnxRuntimeBackend.open(network, threads=2)


class TestOpenVino(BackendContract):
    @pytest.fixture
    def backend(self, network):
        return OpenVinoBackend.open(network, threads=2)


class TestOpenVinoOfOneThread(BackendContract):
    @pytest.fixture
    def backend(self, network):
        return OpenVinoBackend.open(network, threads=1)


class TestOpenVinoIntermediateRepresentation(BackendContract):
    @pytest.fixture
    def backend(self, network, tmp_path):
        import openvino

        model = openvino.Core().read_model(network)
        openvino.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
        return OpenVinoBackend.open(tmp_path / "model.xml")


def test_openvino_computes_in_float32(tmp_path):
    spec = brightest_band_spec()
    images = np.full((1, 3, 32, 32), 1 + 2**-12, np.float32)  # bfloat16 would round this to 1
    path = write_brightest_band(tmp_path / "model.onnx", spec)
    assert OpenVinoBackend.open(path).infer(images).min() > 1


@BOTH
class TestBadFiles:
    def test_no_file(self, backend_class, tmp_path):
        with pytest.raises(BackendError, match=r"absent\.onnx"):
            backend_class.open(tmp_path / "absent.onnx")

    def test_empty_cut_or_text(self, backend_class, network, tmp_path):
        path = tmp_path / "model.onnx"
        whole = network.read_bytes()
        for content in (b"", whole[: len(whole) // 2], b"weights go here\n" * 20):
            path.write_bytes(content)
            with pytest.raises(BackendError, match=r"model\.onnx"):
                backend_class.open(path)

    def test_operator_that_the_library_does_not_know(self, backend_class, tmp_path):
        path = write_graph(
            tmp_path / "model.onnx",
            [helper.make_node("Nonsense", ["images"], ["logits"])],
            inputs={"images": ["n", 3, 32, 32]},
            outputs={"logits": ["n", 3, 8, 8]},
            metadata=brightest_band_spec().to_metadata(),
        )
        with pytest.raises(BackendError, match="cannot load"):
            backend_class.open(path)

    def test_two_inputs(self, backend_class, tmp_path):
        path = write_graph(
            tmp_path / "model.onnx",
            [helper.make_node("Add", ["a", "b"], ["logits"])],
            inputs={"a": [1, 3, 32, 32], "b": [1, 3, 32, 32]},
            outputs={"logits": [1, 3, 32, 32]},
            metadata=brightest_band_spec(output_stride=1).to_metadata(),
        )
        with pytest.raises(BackendError, match=r"takes a .*; b .*; expected one input"):
            backend_class.open(path)

    def test_labels_instead_of_logits(self, backend_class, tmp_path):
        path = write_graph(
            tmp_path / "model.onnx",
            [helper.make_node("ReduceMax", ["images"], ["labels"], axes=[1], keepdims=0)],
            inputs={"images": [1, 3, 32, 32]},
            outputs={"labels": [1, 32, 32]},
            metadata=brightest_band_spec().to_metadata(),
        )
        with pytest.raises(BackendError, match="expected one output"):
            backend_class.open(path)

    def test_a_file_that_does_not_describe_itself(self, backend_class, tmp_path):
        path = write_brightest_band(tmp_path / "model.onnx", metadata={})
        with pytest.raises(SpecError, match="give a ModelSpec"):
            backend_class.open(path)
        images = np.zeros((1, 3, 32, 32), np.float32)
        assert backend_class.open(path, spec=brightest_band_spec()).infer(images).shape[1] == 3

    @pytest.mark.parametrize(
        "wrong",
        [
            {"class_names": ("a", "b"), "palette": ()},
            {"input_hw": (64, 64)},
            {"output_stride": 2},
            {"bands": ("grey",), "mean": (0.0,), "std": (1.0,)},
        ],
    )
    def test_a_spec_that_contradicts_the_network(self, backend_class, network, wrong):
        with pytest.raises(SpecError, match="correct the spec"):
            backend_class.open(network, spec=brightest_band_spec(**wrong))


def write_correlation(path):
    """Writes a network of one correlation node, that squares its input."""
    node = helper.make_node(
        "LocalCorrelation", ["images", "images"], ["logits"], domain="cclseg", radius=0, groups=3
    )
    return write_graph(
        path,
        [node],
        inputs={"images": ["n", 3, 32, 32]},
        outputs={"logits": ["n", 3, 32, 32]},
        metadata=brightest_band_spec(output_stride=1).to_metadata(),
        domains=("cclseg",),
    )


@BOTH
class TestCorrelation:
    """A network of one correlation node, without a body that could stand in for a kernel."""

    @pytest.fixture
    def path(self, tmp_path):
        return write_correlation(tmp_path / "model.onnx")

    def test_the_compiled_kernel_computes_it(self, backend_class, path, monkeypatch):
        native_library(backend_class.name)
        monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(FOLDER))
        images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
        logits = backend_class.open(path).infer(images)
        np.testing.assert_allclose(logits, images**2, rtol=1e-6)

    def test_without_a_kernel_it_cannot_be_loaded(self, backend_class, path, monkeypatch, tmp_path):
        monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(tmp_path / "empty"))
        with pytest.raises(BackendError, match="cannot load"):
            backend_class.open(path)

    def test_a_body_stands_in_for_the_kernel(self, backend_class, path, monkeypatch, tmp_path):
        model = onnx.load(path)
        model.opset_import[0].version = 18  # the lowest that bodies are written for
        onnx.save(attach_function(model), path)
        monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(tmp_path / "empty"))
        images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
        logits = backend_class.open(path).infer(images)
        np.testing.assert_allclose(logits, images**2, rtol=1e-6)

    def test_a_broken_kernel_is_reported(self, backend_class, path, monkeypatch, tmp_path):
        built = native_library(backend_class.name)
        (tmp_path / built.name).write_bytes(b"no library")
        monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(tmp_path))
        with pytest.raises(BackendError, match=built.name):
            backend_class.open(path)


def test_an_openvino_file_with_a_correlation_takes_the_kernel(tmp_path, monkeypatch):
    import openvino

    library = native_library("openvino")
    path = write_correlation(tmp_path / "model.onnx")
    core = openvino.Core()
    core.add_extension(str(library))
    openvino.save_model(core.read_model(path), tmp_path / "model.xml", compress_to_fp16=False)
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(FOLDER))
    logits = OpenVinoBackend.open(tmp_path / "model.xml").infer(images)
    np.testing.assert_allclose(logits, images**2, rtol=1e-6)
    monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(tmp_path / "empty"))
    with pytest.raises(BackendError, match="cannot load"):
        OpenVinoBackend.open(tmp_path / "model.xml")


class TestChoice:
    def test_the_faster_is_chosen_and_both_figures_are_logged(self, network, caplog, monkeypatch):
        monkeypatch.setattr(choose, "_remembered", {})
        with caplog.at_level(logging.INFO, "cclseg"):
            backend = open_backend(network, threads=1)
        assert backend.name in ("onnxruntime", "openvino")
        text = caplog.text
        assert f"{backend.name}, the fastest here" in text
        assert "onnxruntime " in text
        assert "openvino " in text
        assert "1 threads" in text

    def test_the_answer_is_remembered(self, network, caplog, monkeypatch):
        monkeypatch.setattr(choose, "_remembered", {})
        first = open_backend(network, threads=1)
        with caplog.at_level(logging.INFO, "cclseg"):
            assert open_backend(network, threads=1).name == first.name
        assert "fastest" not in caplog.text

    @pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
    def test_a_name_is_obeyed(self, network, name):
        assert open_backend(network, backend=name).name == name

    def test_an_unknown_name_is_answered_with_the_nearest(self, network):
        with pytest.raises(InputError, match="did you mean 'openvino'"):
            open_backend(network, backend="openvion")

    def test_an_unknown_kind_of_file_names_the_known_ones(self, tmp_path):
        with pytest.raises(InputError, match=r"no backend loads '\.tflite' files.*\.onnx.*\.xml"):
            open_backend(tmp_path / "model.tflite")

    def test_a_backend_refuses_files_of_others(self, tmp_path):
        with pytest.raises(InputError, match=r"loads \.onnx files; got model\.xml"):
            open_backend(tmp_path / "model.xml", backend="onnxruntime")

    @pytest.mark.parametrize("threads", [0, -2])
    def test_no_threads_are_refused(self, network, threads):
        with pytest.raises(InputError, match=f"threads={threads}"):
            open_backend(network, threads=threads)

    def test_a_network_that_one_library_cannot_run_goes_to_the_other(self, tmp_path, caplog):
        nodes = [  # OpenVINO reads some contrib operators of ONNX Runtime, not this one
            helper.make_node("Inverse", ["images"], ["inverted"], domain="com.microsoft"),
            helper.make_node(
                "AveragePool", ["inverted"], ["logits"], kernel_shape=[4, 4], strides=[4, 4]
            ),
        ]
        path = write_graph(
            tmp_path / "model.onnx",
            nodes,
            inputs={"images": ["n", 3, 32, 32]},
            outputs={"logits": ["n", 3, 8, 8]},
            metadata=brightest_band_spec().to_metadata(),
            domains=("com.microsoft",),
        )
        backend = open_backend(path)
        assert backend.name == "onnxruntime"
        assert "OpenVINO cannot load" in caplog.text
        assert "using onnxruntime" in caplog.text
        images = np.broadcast_to(np.eye(32, dtype=np.float32) / 8, (1, 3, 32, 32)).copy()
        logits = backend.infer(images)
        np.testing.assert_allclose(logits[0, 0], np.eye(8) * 2, atol=1e-5)

    def test_the_only_library_is_taken_and_the_log_says_why(self, network):
        done = run_without(["openvino"], network)
        assert "onnxruntime, the only backend installed for such files" in done.stderr

    def test_without_any_library_the_extra_is_named(self, network):
        done = run_without(["openvino", "onnxruntime"], network)
        assert "MissingDependencyError" in done.stderr
        assert 'pip install "cclseg[cpu]"' in done.stderr


def run_without(libraries, network):
    """Opens a network in a process in which some libraries cannot be imported."""
    code = (
        "import sys, logging, pathlib; logging.basicConfig(level=logging.INFO)\n"
        f"for name in {libraries!r}: sys.modules[name] = None\n"
        "from cclseg.backends.choose import open_backend\n"
        f"open_backend(pathlib.Path({str(network)!r}))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


PLUG_IN = """
import numpy
from cclseg.backends.base import Backend
from networks import block_means, brightest_band_spec

class NumpyBackend(Backend):
    name = "numpy"
    suffixes = (".npy",)

    @classmethod
    def open(cls, path, *, spec=None, threads=None):
        return cls(spec or brightest_band_spec())

    def _infer(self, images):
        return block_means(images)
"""


class TestPlugIn:
    @pytest.fixture(autouse=True)
    def installed(self, tmp_path, monkeypatch):
        """A distribution with a backend, as pip would lay it out."""
        (tmp_path / "tests_plug_in.py").write_text(PLUG_IN)
        about = tmp_path / "tests_plug_in-1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tests-plug-in\nVersion: 1\n")
        entry = "[cclseg.backends]\nnumpy = tests_plug_in:NumpyBackend\n"
        (about / "entry_points.txt").write_text(entry)
        monkeypatch.syspath_prepend(tmp_path)
        choose._plugged_in_suffixes.cache_clear()
        yield
        choose._plugged_in_suffixes.cache_clear()
        sys.modules.pop("tests_plug_in", None)

    def test_it_is_found_by_name(self):
        assert "numpy" in backend_names()
        assert load_backend("numpy").suffixes == (".npy",)

    def test_it_is_found_by_the_kind_of_file(self, tmp_path):
        backend = open_backend(tmp_path / "model.npy")
        images = np.ones((1, 3, 32, 32), np.float32)
        assert backend.name == "numpy"
        np.testing.assert_array_equal(backend.infer(images), block_means(images))
