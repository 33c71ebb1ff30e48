"""A backend without a library, which may be as slow or as unsure of itself as a test wants."""

import time
from typing import ClassVar

import numpy as np
from networks import block_means, brightest_band_spec

from cclseg.backends.base import Backend


class FakeBackend(Backend):
    """Tells the brightest band, as the network of tests/support/networks.py does.

    Attributes:
        tile_s: Processor time that every tile burns.
        noise: Standard deviation of what is added to the logits.
    """

    name: ClassVar = "fake"
    suffixes: ClassVar = ()

    def __init__(self, spec=None, *, tile_s=0.0, noise=0.0):
        super().__init__(spec or brightest_band_spec())
        self.tile_s, self.noise = tile_s, noise
        self.closed = False
        self._rng = np.random.default_rng(0)

    @classmethod
    def open(cls, path, *, spec=None, threads=None):
        raise NotImplementedError("it has no file")

    def _infer(self, images):
        end = time.perf_counter() + self.tile_s * len(images)
        logits = block_means(images)
        logits += self._rng.normal(0, self.noise, logits.shape).astype(np.float32)
        while time.perf_counter() < end:
            pass
        return logits

    def close(self):
        self.closed = True


def submit_to(backend):
    """Returns what runs a backend as :attr:`cclseg.packing.Network.submit` does."""

    def submit(tiles, out):
        np.copyto(out, backend.infer(tiles))
        return lambda: None

    return submit
