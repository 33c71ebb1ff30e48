"""The frame kernels in a program of their own: under sanitizers, and for 64-bit ARM."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from frame_contract import FrameContract
from native_libraries import HERE, arm_program, sanitized_program

DRIVER = HERE / "frame_driver.cpp"


class Driven(FrameContract):
    """Runs each kernel of the program's processor, and wants one answer of all."""

    def kernels(self):
        done = subprocess.run(self.command, capture_output=True, text=True, check=True)
        return done.stdout.split()

    def run(self, function, *parts):
        content = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
        answers = set()
        for kernel in self.kernels():
            done = subprocess.run(
                [*self.command, kernel, function], input=content, capture_output=True, check=False
            )
            assert done.returncode == 0, done.stderr.decode()[-2000:]
            answers.add(done.stdout)
        assert len(answers) == 1
        return answers.pop()

    def class_ids(self, logits, *, stride, size_hw):
        header = np.array([*logits.shape, stride, *size_hw], np.int64)
        dtype = np.uint8 if len(logits) <= 255 else np.uint16
        return np.frombuffer(self.run("classes", header, logits), dtype).reshape(size_hw)

    def normalise(self, image, places, mean, deviation, corner, tile_hw):
        header = np.array([*image.shape, len(places), *corner, *tile_hw], np.int64)
        where = np.array(places, np.int64)
        out = self.run("normalise", header, where, mean, deviation, image)
        return np.frombuffer(out, np.float32).reshape(len(places), *tile_hw)

    def add(self, logits, canvas, corner, weights):
        header = np.array([*canvas.shape, *corner, *logits.shape[1:]], np.int64)
        out = self.run("blend", header, *weights, logits, canvas)
        return np.frombuffer(out, np.float32).reshape(canvas.shape)


@pytest.mark.slow
class TestUnderSanitizers(Driven):
    @pytest.fixture(autouse=True)
    def _open(self):
        self.command = sanitized_program(DRIVER)


@pytest.mark.slow
class TestOnArm(Driven):
    @pytest.fixture(autouse=True)
    def _open(self):
        self.command = arm_program(DRIVER)

    def test_the_kernel_is_that_of_the_processor(self):
        assert self.kernels() == ["neon"]
