"""All that a GPU does to a frame around the network: checked, and timed against its floors.

Usage: python benchmarks/gpu_pipeline.py [--library ctypes] [--cases 40] [--samples 300] [-o FILE]
       python benchmarks/gpu_pipeline.py --emulate

Needs a driver and NVRTC, and no TensorRT: a kernel that averages blocks stands for the network.
Random frames must give the tiles, canvas, classes and confidence of the numpy definitions, and the
pipeline their masks, or the run fails. Then each kernel's time stands beside its floor, which is
reading and writing its memory once at the rate of a plain copy of the same run, and the pipeline,
one frame at a time and two on their way, beside the network alone. With --emulate everything runs
on the CPU, and nothing is timed.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _gpu_checks import Checks
from _gpu_work import CLASSES, TILES_PER_CALL, OnDevice, Work, spec_for
from _record import percentiles, write_result
from _stand_in import STRIDE, StandInNetwork, queue_copy

from cclseg.cuda_devices import read_cuda
from cclseg.device_frames import DeviceFrames
from cclseg.files import make_folder
from cclseg.gpu.api import open_api
from cclseg.gpu.device import Device
from cclseg.tiling import plan_tiles

_COPY_BYTES = 1 << 28
_FRAMES_HW = ((720, 1280), (2160, 3840))
_WARM_UP = 20


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", help="ctypes, cuda-python or pycuda (default: ctypes)")
    parser.add_argument("--cases", type=int, default=40, help="random frames")
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument(
        "--repeats", type=int, default=40, help="work of the network that stands in"
    )
    parser.add_argument("--emulate", action="store_true", help="check on the CPU, time nothing")
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    emulated = _load_emulated_driver() if arguments.emulate else None
    with Device(api=open_api(arguments.library)) as device, device.current():
        checks = Checks(device, emulated, repeats=arguments.repeats)
        content: dict[str, Any] = {
            "gpu": "emulated" if emulated else _gpu_name(),
            "library": device.api.name,
            "random_frames": arguments.cases,
            "largest_confidence_error": checks.check_kernels(arguments.cases),
            "pipeline_frames": checks.check_pipeline(max(4, arguments.cases // 4)),
        }
        print(f"{arguments.cases} frames: tiles, canvas and classes equal numpy's")
        print(f"{content['pipeline_frames']} frames through the pipeline: masks equal numpy's")
        if not emulated:
            content |= Timings(device, None, repeats=arguments.repeats).all(arguments.samples)
    if arguments.out is None and emulated:
        return
    out = arguments.out
    if out is None:
        name = re.sub(r"[^a-z0-9]+", "-", content["gpu"].lower()).strip("-")
        out = make_folder(Path(__file__).parent / "results" / name) / "gpu_pipeline.json"
    print(write_result("gpu_pipeline", content, out))


def _load_emulated_driver() -> ctypes.CDLL:
    """Loads it in place of a real one: whoever asks for libcuda.so.1 from now on gets it."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
    import emulated_device  # it belongs to the tests

    library = emulated_device.driver_folder() / "libcuda.so.1"
    return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def _gpu_name() -> str:
    driver = read_cuda()
    assert driver is not None
    return driver.devices[0].name


class Timings(OnDevice):
    """Times of kernels and of the pipeline."""

    def all(self, samples: int) -> dict[str, Any]:
        """Times everything; returns what the result file holds of it."""
        bytes_per_us = self._copy_rate(samples)
        rows = [self._kernel_row(work, bytes_per_us, samples) for work in self._works()]
        for row in rows:
            took, share = f"{row['us']['p50']:.1f} us", f"{100 * row['share_of_floor']:.0f} %"
            print(f"{row['kernel']} {row['frame_hw']}: {took}, {share} of the memory floor")
        self.clear()
        pipelines = [self._pipeline_row(frame_hw, samples) for frame_hw in _FRAMES_HW]
        return {"copy_gb_per_s": bytes_per_us / 1e3, "kernels": rows, "pipeline": pipelines}

    def _copy_rate(self, samples: int) -> float:
        assert self.own is not None
        source, target, module = self.reserve(_COPY_BYTES), self.reserve(_COPY_BYTES), self.own
        times_us = self._sample(
            lambda: queue_copy(module, source, target, _COPY_BYTES, self.stream.handle), samples
        )
        self.clear()
        return 2 * _COPY_BYTES / float(np.median(times_us))

    def _works(self) -> list[tuple[tuple[int, int], Work]]:
        works = []
        for frame_hw in _FRAMES_HW:
            spec = spec_for((512, 512))
            plan = plan_tiles(frame_hw, spec.input_hw, overlap=0.25, stride=STRIDE)
            corners = np.array(plan.corners, np.int32)
            image = self.reserve(3 * int(np.prod(frame_hw)))
            canvas = self.reserve(4 * CLASSES * int(np.prod(plan.canvas_hw)))
            logits = self.reserve(4 * CLASSES * len(corners) * 128 * 128)
            works += [
                (frame_hw, each)
                for each in (
                    self.normalising((*frame_hw, 3), spec, corners, image),
                    self.blending(plan, canvas, logits, len(corners)),
                    self.resulting(plan, canvas, "uint8"),
                    self.resulting(plan, canvas, "float32"),
                )
            ]
        return works

    def _kernel_row(
        self, sized: tuple[tuple[int, int], Work], bytes_per_us: float, samples: int
    ) -> dict[str, Any]:
        frame_hw, work = sized
        times_us = self._sample(
            lambda: self.kernels.queue(work.plan, stream=self.stream.handle), samples
        )
        floor_us = work.floor_bytes / bytes_per_us
        return {
            "kernel": work.name, "frame_hw": frame_hw, "samples_us": times_us,
            "us": percentiles(times_us), "floor_us": floor_us,
            "share_of_floor": floor_us / float(np.median(times_us)),
        }  # fmt: skip

    def _sample(self, queue: Callable[[], None], samples: int) -> list[float]:
        """Returns the device's microseconds of each run, after a warm-up."""
        start, end = self.device.event(), self.device.event()
        times_us = []
        for index in range(samples + _WARM_UP):
            self.stream.record(start)
            queue()
            self.stream.record(end)
            self.stream.synchronize()
            if index >= _WARM_UP:
                times_us.append(1e3 * self.device.api.elapsed_ms(start, end))
        return times_us

    def _pipeline_row(self, frame_hw: tuple[int, int], samples: int) -> dict[str, Any]:
        """Times frames one by one, two on their way, and the network alone."""
        spec = spec_for((512, 512))
        network = StandInNetwork(self.device, spec, tiles=TILES_PER_CALL, queue=self.network)
        pipeline = DeviceFrames(network, spec)
        frame = self.rng.integers(0, 256, (*frame_hw, 3), np.uint8)
        tiles = len(plan_tiles(frame_hw, (512, 512), overlap=0.25, stride=STRIDE).corners)
        groups = [min(TILES_PER_CALL, tiles - i) for i in range(0, tiles, TILES_PER_CALL)]

        def alone() -> None:
            for count in groups:
                network.sets[0].infer(count)
            network.sets[0].stream.synchronize()

        waiting = [pipeline.submit(frame)]

        def overlapped() -> None:
            waiting.append(pipeline.submit(frame))
            waiting.pop(0)()

        ways: dict[str, Callable[[], object]] = {
            "network_alone": alone,
            "one_at_a_time": pipeline.submit(frame),
            "two_on_their_way": overlapped,
        }
        row: dict[str, Any] = {"frame_hw": frame_hw, "tiles": tiles}
        for name, run in ways.items():
            samples_ms = _wall_ms(run, samples)
            row[name] = {"samples_ms": samples_ms, "ms": percentiles(samples_ms)}
        row["overlapped_over_alone"] = (
            row["two_on_their_way"]["ms"]["mean"] / row["network_alone"]["ms"]["mean"]
        )
        print(f"{frame_hw}: {row['overlapped_over_alone']:.3f} times the network alone")
        return row


def _wall_ms(run: Callable[[], object], samples: int) -> list[float]:
    times_ms = []
    for index in range(samples + _WARM_UP):
        start_ns = time.perf_counter_ns()
        run()
        if index >= _WARM_UP:
            times_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    return times_ms


if __name__ == "__main__":
    main()
