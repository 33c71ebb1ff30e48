"""The compiled plugin in TensorRT's own libraries: the lean registry, and engine builds of RTX."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import tensorrt_plugin
from native_libraries import native_plugin
from tensorrt_plugin import ONNX_TYPES, RefusedError

RTX_TYPES = {"float32": "FLOAT", "float16": "HALF", "int8": "INT8"}


@pytest.fixture(scope="module")
def compiled_plugin():
    return native_plugin()


class TestLeanRegistry:
    @pytest.fixture(autouse=True)
    def _installed(self):
        if not tensorrt_plugin.is_installed("tensorrt_lean_bindings"):
            pytest.skip("tensorrt_lean_cu13_bindings is not installed (group test-trt)")

    @staticmethod
    def report(library, *fields):
        script = tensorrt_plugin.HERE / "lean_registry.py"
        answer = subprocess.run(
            [sys.executable, script, library, *fields],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout.splitlines()[-1]), answer.stderr

    def test_finds_and_instantiates_the_plugin(self, compiled_plugin):
        report, _ = self.report(compiled_plugin, "radius=3", "groups=2")
        assert report["plugin"] == ["LocalCorrelation", "1", "cclseg"]
        assert report["fields"] == [
            "radius", "dilation", "groups", "normalize", "out_dtype", "a_scale", "b_scale",
            "out_scale",
        ]  # fmt: skip
        build, runtime = report["capabilities"]
        assert build.startswith("IPluginV3OneBuild")
        assert runtime == "IPluginV3OneRuntime"

    def test_hears_why_a_plugin_is_refused(self, compiled_plugin):
        report, errors = self.report(compiled_plugin, "radius=-3")
        assert report["plugin"] is None
        assert "got radius -3; expected 0 or more" in errors


class TestRtxEngine:
    """TensorRT for RTX parses a file, takes its node as the plugin, and builds an engine."""

    @pytest.fixture(autouse=True)
    def _installed(self):
        for module in ("tensorrt_rtx_bindings", "tensorrt_rtx_libs"):
            if not tensorrt_plugin.is_installed(module):
                pytest.skip(f"{module} is not installed (group test-trt)")

    @staticmethod
    def model(shape, map_type, *, out_type=None, **options):
        """One correlation; int8 maps come from floating inputs that are quantized."""
        onnx = pytest.importorskip("onnx")
        operator = pytest.importorskip("cclseg_export.operator")
        model = operator.make_model(shape, dtype=map_type, scales=(0.05, 0.05), **options)
        graph, helper = model.graph, onnx.helper
        if map_type == "int8":
            scales = helper.make_tensor("scale", 1, [], [0.05])
            graph.initializer.append(scales)
            zero = helper.make_tensor("zero", ONNX_TYPES["int8"], [], [0])
            graph.initializer.append(zero)
            correlation = graph.node[0]
            for i, name in enumerate(("a", "b")):
                graph.input[i].type.tensor_type.elem_type = 1
                quantize = helper.make_node(
                    "QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"]
                )
                graph.node.insert(i, quantize)
                correlation.input[i] = f"{name}_q"
            if out_type == "int8":
                correlation.attribute.append(helper.make_attribute("out_dtype", 3))
                correlation.attribute.append(helper.make_attribute("out_scale", 0.05))
                correlation.output[0] = "out_q"
                graph.node.append(
                    helper.make_node("DequantizeLinear", ["out_q", "scale", "zero"], ["out"])
                )
        return operator.name_plugin(model)

    @pytest.mark.parametrize(
        ("map_type", "out_type", "layers"),
        [("float32", None, 1), ("float16", None, 1), ("int8", None, 3), ("int8", "int8", 4)],
    )
    @pytest.mark.parametrize("shape", [(2, 8, 32, 48), (1, 8, "h", "w")], ids=["fixed", "dynamic"])
    def test_is_built(self, compiled_plugin, tmp_path, shape, map_type, out_type, layers):
        model = self.model(shape, map_type, out_type=out_type, radius=2, groups=2, normalize=True)
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        report = tensorrt_plugin.build_rtx_engine(compiled_plugin, path, tmp_path)
        assert report["layers"].count("PLUGIN_V3") == 1
        assert "not found in plugin node" not in report["log"]
        assert len([layer for layer in report["layers"] if layer != "CONSTANT"]) == layers
        free = [-1 if isinstance(size, str) else size for size in shape]
        assert report["output_shape"] == [free[0], 50, *free[2:]]
        assert report["plugin_types"][:2] == [RTX_TYPES[map_type]] * 2
        assert report["output_type"] == ("HALF" if map_type == "float16" else "FLOAT")
        assert (tmp_path / "engine.plan").stat().st_size == report["engine_bytes"] > 0

    def test_wrong_options_end_the_build_with_a_reason(self, compiled_plugin, tmp_path):
        model = self.model((1, 8, 16, 16), "float32", radius=1)
        for attribute in model.graph.node[0].attribute:
            if attribute.name == "groups":
                attribute.i = 3
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(RefusedError, match="got 3 groups for 8 channels"):
            tensorrt_plugin.build_rtx_engine(compiled_plugin, path, tmp_path)
