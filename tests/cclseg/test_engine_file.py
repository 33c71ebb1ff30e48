"""Engines that fit, and every way in which one does not."""

from __future__ import annotations

import hashlib
import json

import pytest
from engines import ORIN, PLAN, write_engine
from networks import brightest_band_spec

from cclseg.cuda_devices import CudaDevice
from cclseg.engine_file import Here, load_plan
from cclseg.engine_record import EngineRecord, Plugin, read_record
from cclseg.errors import EngineMismatchError

LIBRARY_OF_OPERATORS = b"compiled operators"
PLUGIN = Plugin("LocalCorrelation", "1", hashlib.sha256(LIBRARY_OF_OPERATORS).hexdigest())
THOR = CudaDevice("Thor", (11, 0), 1)
TURING = CudaDevice("T4", (7, 5), 1)


def load(engine, *, library_version="10.3.0", devices=(ORIN,), plugin=None):
    return load_plan(engine, read_record(engine), Here(library_version, devices, plugin))


def refusal(engine, **here):
    with pytest.raises(EngineMismatchError) as caught:
        load(engine, **here)
    return str(caught.value)


def test_a_whole_engine_of_this_machine_is_given_as_its_bytes(tmp_path):
    assert load(write_engine(tmp_path)) == PLAN


def test_the_sidecar_keeps_everything(tmp_path):
    engine = write_engine(
        tmp_path, plugin=PLUGIN, dla_core=1, workspace_bytes=1 << 30, version_compatible=True
    )
    record = read_record(engine)
    assert EngineRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    assert record.spec == brightest_band_spec()
    assert record.plugin == PLUGIN
    assert record.shapes["images"][2] == (4, 3, 32, 32)


def test_another_device_is_refused_with_the_command_that_builds_it(tmp_path):
    message = refusal(write_engine(tmp_path), devices=(THOR,))
    assert "built for compute capability 8.7 (Orin), this device has 11.0 (Thor)" in message
    assert message.endswith(
        "cclseg build model.onnx --target tensorrt --min images:1x3x32x32 "
        "--opt images:1x3x32x32 --max images:4x3x32x32 -o model.engine"
    )


def test_no_device_is_refused(tmp_path):
    message = refusal(write_engine(tmp_path), devices=())
    assert "no NVIDIA device or driver" in message
    assert message.endswith("or load the ONNX file that it was built from")


@pytest.mark.parametrize("version", ["10.3.1", "10.13.3.9", "11.3.0", "8.6.1"])
def test_another_version_is_refused(tmp_path, version):
    message = refusal(write_engine(tmp_path), library_version=version)
    assert f"built by tensorrt 10.3.0, here is {version}" in message


def test_a_repackaged_version_is_the_same(tmp_path):
    assert load(write_engine(tmp_path), library_version="10.3.0.post1") == PLAN


@pytest.mark.parametrize(
    ("version", "fits"), [("10.13.3", True), ("10.2.0", False), ("11.4", False)]
)
def test_a_version_compatible_engine_runs_in_later_versions(tmp_path, version, fits):
    engine = write_engine(tmp_path, version_compatible=True)
    if fits:
        assert load(engine, library_version=version) == PLAN
    else:
        assert "--version-compatible" in refusal(engine, library_version=version)


@pytest.mark.parametrize(
    ("level", "device", "fits"),
    [("ampere-plus", THOR, True), ("ampere-plus", TURING, False),
     ("same-compute-capability", THOR, False)],
)  # fmt: skip
def test_hardware_compatibility(tmp_path, level, device, fits):
    engine = write_engine(tmp_path, hardware_compatibility=level)
    if fits:
        assert load(engine, devices=(device,)) == PLAN
    else:
        assert f"--hardware-compatible {level}" in refusal(engine, devices=(device,))


def test_an_engine_for_any_device_fits_all(tmp_path):
    engine = write_engine(tmp_path, library="tensorrt-rtx", capability=None)
    assert load(engine, devices=(TURING,)) == PLAN


def test_a_cut_engine_is_refused(tmp_path):
    engine = write_engine(tmp_path)
    engine.write_bytes(PLAN[:-1])
    assert f"{len(PLAN) - 1} bytes and was written with {len(PLAN)}" in refusal(engine)


def test_an_altered_engine_is_refused(tmp_path):
    engine = write_engine(tmp_path)
    engine.write_bytes(PLAN[:-1] + b"\x00")
    assert "SHA-256 differs" in refusal(engine)


def test_another_source_beside_it_is_refused(tmp_path):
    engine = write_engine(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"trained once more")
    assert "model.onnx beside it is another model" in refusal(engine)


def test_the_source_is_not_needed(tmp_path):
    engine = write_engine(tmp_path)
    (tmp_path / "model.onnx").unlink()
    assert load(engine) == PLAN


def test_the_source_that_a_sidecar_names_is_looked_for_beside_it_alone(tmp_path):
    outside = tmp_path / "outside.onnx"
    outside.write_bytes(b"another file")
    folder = tmp_path / "models"
    folder.mkdir()
    assert load(write_engine(folder, source="../outside.onnx")) == PLAN


def test_the_plugin_must_be_the_one_it_was_built_with(tmp_path):
    engine = write_engine(tmp_path, plugin=PLUGIN)
    library = tmp_path / "plugin.so"
    assert "not compiled here (cclseg ops build --tensorrt)" in refusal(engine)
    library.write_bytes(b"other operators")
    assert "another plugin than" in refusal(engine, plugin=library)
    library.write_bytes(LIBRARY_OF_OPERATORS)
    assert load(engine, plugin=library) == PLAN


def test_all_reasons_are_said_at_once(tmp_path):
    engine = write_engine(tmp_path, plugin=PLUGIN)
    engine.write_bytes(PLAN[:9])
    message = refusal(engine, devices=(THOR,), library_version="11.4.0")
    for reason in ("here is 11.4.0", "has 11.0 (Thor)", "not compiled here", "cut off"):
        assert reason in message


def test_an_engine_without_a_sidecar_is_refused(tmp_path):
    engine = write_engine(tmp_path)
    (tmp_path / "model.engine.json").unlink()
    message = refusal(engine)
    assert "no sidecar model.engine.json" in message
    assert message.endswith("cclseg build model.onnx")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "damaged"), (b"{", "damaged"), (b"[]", "'library' is None"), (b"\xff\xfe{}", "damaged"),
     (b'{"library": "tensorrt"}', "'library_version' is None")],
)  # fmt: skip
def test_a_damaged_sidecar_is_refused(tmp_path, content, reason):
    engine = write_engine(tmp_path)
    (tmp_path / "model.engine.json").write_bytes(content)
    assert reason in refusal(engine)


@pytest.mark.parametrize(
    ("key", "value"),
    [("library", "onnxruntime"), ("capability", [8]), ("capability", ["8", "x"]),
     ("plugin", {"name": "it"}), ("shapes", {"images": [[1], [2]]}), ("shapes", {"images": 3}),
     ("engine_bytes", "many"), ("spec", {"name": "it", "class_names": []}),
     ("hardware_compatibility", "all")],
)  # fmt: skip
def test_a_sidecar_of_another_form_is_refused(tmp_path, key, value):
    engine = write_engine(tmp_path)
    sidecar = tmp_path / "model.engine.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {key: value}))
    assert "is damaged" in refusal(engine)


def test_keys_of_later_versions_are_ignored(tmp_path):
    engine = write_engine(tmp_path)
    sidecar = tmp_path / "model.engine.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"from_the_future": 1}))
    assert load(engine) == PLAN


def test_a_command_made_from_a_sidecar_is_one_command(tmp_path):
    """A sidecar comes from elsewhere, and people paste what a message tells them to run."""
    engine = write_engine(tmp_path, source="model.onnx; rm -rf ~")
    assert "cclseg build 'model.onnx; rm -rf ~' --target" in refusal(engine, devices=(THOR,))
