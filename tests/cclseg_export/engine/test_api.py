"""The calls of TensorRT: names that all versions have, and what is seen without a device."""

from __future__ import annotations

import ast
import json
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import pytest

import cclseg.backends
from cclseg_export.engine import api
from cclseg_export.engine.api import dla_outsiders

HERE = Path(__file__).parent
RECORDED = json.loads((HERE.parents[1] / "support" / "tensorrt_names.json").read_text())
"""Members of TensorRT's classes, read from the Python bindings of the named versions."""

CALLERS = [Path(api.__file__), Path(str(files(cclseg.backends).joinpath("tensorrt.py")))]


def members(version):
    return {name for names in RECORDED[version].values() for name in names}


def attributes_in(path):
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("version", sorted(RECORDED))
@pytest.mark.parametrize("caller", CALLERS, ids=lambda path: path.stem)
def test_every_member_that_is_called_exists_from_10_to_11(caller, version):
    known = set.union(*map(members, RECORDED))
    called = attributes_in(caller) & known
    assert len(called) > 10
    assert called <= members(version)


@pytest.mark.parametrize("version", sorted(RECORDED))
def test_members_that_are_chosen_by_name_exist(version):
    names = RECORDED[version]
    assert {"WORKSPACE", "TACTIC_DRAM"} <= set(names["MemoryPoolType"])
    assert {"NONE", "AMPERE_PLUS"} <= set(names["HardwareCompatibilityLevel"])
    assert {"VERSION_COMPATIBLE", "GPU_FALLBACK"} <= set(names["BuilderFlag"])
    assert "STRONGLY_TYPED" in names["NetworkDefinitionCreationFlag"]


def test_rtx_has_every_member_that_is_called():
    rtx = pytest.importorskip("tensorrt_rtx_bindings", reason="no TensorRT for RTX (test-trt)")
    for class_name, names in RECORDED["11.4.0.106"].items():
        known = set(dir(getattr(rtx, class_name)))
        called = set.union(*map(attributes_in, CALLERS)) & set(names)
        assert called <= known, class_name


def test_layers_outside_the_accelerator_are_named_and_weights_are_not():
    layers = [
        SimpleNamespace(name="conv", type="CONVOLUTION"),
        SimpleNamespace(name="weights", type="CONSTANT"),
        SimpleNamespace(name="resize", type="RESIZE"),
    ]
    found = dla_outsiders(layers, lambda layer: layer.name == "conv", constant="CONSTANT")
    assert found == ["resize"]
