"""Cameras that do as they are told."""

import threading

from networks import colour_patches

from cclseg.frame import Frame
from cclseg.sources import Source


class Camera(Source):
    """A live source that gives a frame every few milliseconds, until it falls silent.

    Args:
        mends: A restart ends the silence.
        restartable: It can be restarted at all.
    """

    live = True

    def __init__(self, *, name="camera", size_hw=(24, 32), mends=True, restartable=True):
        self.name = name
        self.silent = threading.Event()
        self.restarts = []
        self.listeners = []
        self._images = [colour_patches(size_hw, seed=seed) for seed in range(4)]
        self._mends, self._restartable = mends, restartable
        self._off = threading.Event()

    def frames(self, *, on_error=None):
        index = 0
        while not self._off.wait(0.002):
            if not self.silent.is_set():
                yield Frame(self._images[index % 4], index, f"frame_{index:06d}")
                index += 1

    def restart(self, reason):
        if self._restartable:
            self.restarts.append(reason)
            if self._mends:
                self.silent.clear()
        return self._restartable

    def listen(self, on_event):
        self.listeners.append(on_event)

    def tell(self, event):
        for listener in self.listeners:
            listener(event)

    def interrupt(self):
        self._off.set()
