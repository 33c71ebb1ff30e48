"""The build where only numpy, click and the library are installed, as on a device."""

from __future__ import annotations

import os
import subprocess
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest
from rtx import needs_rtx

INSTALLED = ("numpy", "numpy.libs", "click", "tensorrt_rtx_bindings", "tensorrt_rtx_libs")
OURS = ("cclseg", "cclseg_export")


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds links to these packages alone."""
    folder = tmp_path_factory.mktemp("device")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    numpy = find_spec("numpy")
    assert numpy is not None
    assert numpy.origin is not None
    site = Path(numpy.origin).parents[1]
    for name in INSTALLED:
        if (site / name).exists():
            (packages / name).symlink_to(site / name)
    for name in OURS:
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        (packages / name).symlink_to(Path(spec.origin).parent)
    return folder / "bin" / "python"


@needs_rtx
def test_an_engine_is_built_with_numpy_click_and_the_library(
    device: Path, network: Path, tmp_path: Path
) -> None:
    code = (
        "import importlib.util as u, sys;"
        "assert not any(map(u.find_spec, ('torch', 'onnx', 'onnxruntime', 'cv2', 'rich')));"
        "from cclseg_export.engine.cli import build; build(sys.argv[1:])"
    )
    engine = tmp_path / "m.engine"
    words = [device, "-c", code, network, "--target", "tensorrt-rtx", "-o", engine]
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(engine))
    assert engine.with_name("m.engine.json").is_file()
