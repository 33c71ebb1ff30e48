"""A network for all tests of operation, and a clock that goes by hand."""

import threading

import pytest

from cclseg import Segmenter


@pytest.fixture(scope="session")
def segment(network):
    with Segmenter(network, backend="onnxruntime", threads=1) as segmenter:
        yield segmenter


@pytest.fixture(autouse=True)
def _no_thread_stays_behind(segment):
    before = threading.active_count()
    yield
    assert threading.active_count() == before


class HandClock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return HandClock()
