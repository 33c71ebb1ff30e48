"""Fixtures of all tests."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings
from native_libraries import native_library
from networks import write_brightest_band

from cclseg.frame_kernels import CHOICE_VARIABLE, WITHOUT_KERNEL, kernel_names
from cclseg.ops_build import FOLDER_VARIABLE

# A shell that starts the tests in the background lets them and their children ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something about the machine's other work, nothing about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def real_data():
    """The folder of real images and videos beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CCLSEG_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent (set CCLSEG_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    """A model file that tells the brightest colour of 32 x 32 tiles; see tests/support."""
    return write_brightest_band(tmp_path_factory.mktemp("network") / "brightest.onnx")


@pytest.fixture(scope="module", params=[WITHOUT_KERNEL, "compiled"])
def form(request):
    """Both ways to do what happens outside the network, one after the other."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "compiled":
            library = native_library("onnxruntime")
            patch.setenv(FOLDER_VARIABLE, str(library.parent))
            patch.setenv(CHOICE_VARIABLE, kernel_names(library)[0])
        else:
            patch.setenv(CHOICE_VARIABLE, WITHOUT_KERNEL)
        yield request.param
