"""What this machine can run, and why: libraries, backends, graphics processor, video, models.

Nothing is taken on trust: a backend counts when it has run a network, a video writer when its
file could be read back. Nothing is fetched from a network.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np

from .backends.choose import backend_names, load_backend
from .cuda_devices import read_cuda
from .errors import CclsegError, MissingDependencyError
from .files import file_sha256
from .frame_kernels import CHOICE_VARIABLE, frame_kernel
from .machine import Machine, read_machine
from .models import DEFAULT_MODEL, bundled_models
from .ops_build import PACKAGED, Host, find_cpu_library
from .tensorrt_library import Library, find_module, import_library, missing
from .trust import keys_folder, pinned_keys

State = Literal["ok", "untried", "absent", "failed"]

BACKENDS, MODELS, TRUST = "backends", "bundled models", "trust"
FRAMES = "frames around the network"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What was looked at ("onnxruntime").
        state: "ok": there and works; "untried": there, nothing to try it with; "absent": not
            there; "failed": there and does not work.
        detail: Version, figure or reason.
        advice: What to do about it, empty where nothing is to be done.
    """

    name: str
    state: State
    detail: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings about one machine.

    Attributes:
        machine: The computer.
        sections: Findings by heading, in the order of reading.
        usable: Whether images can be segmented here.
        verdict: What it all means, in one line.
    """

    machine: Machine
    sections: dict[str, tuple[Finding, ...]]
    usable: bool
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the diagnosis as plain JSON types."""
        return asdict(self)


_LIBRARIES = (  # import name, the extra that brings it, what it is for
    ("numpy", "", "arrays"),
    ("cv2", "cpu", "images and video"),
    ("onnxruntime", "cpu", "backend"),
    ("openvino", "cpu", "backend"),
    ("click", "cli", "command line"),
    ("rich", "cli", "tables and progress"),
    ("rasterio", "geo", "GeoTIFF"),
    ("cryptography", "trust", "checking signatures"),
    ("model_signing", "sign", "signing models"),
    ("torch", "train", "training"),
    ("onnx", "export", "export"),
    ("onnxscript", "export", "export"),
    ("onnxslim", "export", "export"),
)

_TOOLS = (  # program, how to ask its version, what it is for
    ("g++", "--version", "native operators"),
    ("nvcc", "--version", "CUDA operators"),
    ("ffmpeg", "-version", "converting video by hand"),
)

_CAMERA_LIBRARIES = (  # how OpenCV's build information names them
    ("cameras by V4L2", r"v4l/v4l2:\s+YES"),
    ("cameras by GStreamer", r"GStreamer:\s+YES"),
)
_VIDEO_FRAMES = 4
_CODECS = (("MPEG-4 (mp4v)", "mp4v"), ("H.264 (avc1)", "avc1"))


def diagnose(root: Path = Path("/")) -> Diagnosis:
    """Looks at everything on this machine.

    Args:
        root: Where ``proc``, ``sys`` and ``etc`` stand.
    """
    sections = {
        "libraries": tuple(_look_at_libraries()),
        MODELS: tuple(_look_at_models()),
        BACKENDS: tuple(_try_backends()),
        "compiled correlation": tuple(_look_for_kernels()),
        FRAMES: (_look_at_frame_kernel(),),
        "graphics processor": (_ask_cuda(), *_look_for_tensorrt()),
        TRUST: (_look_for_keys(),),
        "video": tuple(_try_video()),
        "tools": tuple(_look_for_tools()),
    }
    usable, verdict = _verdict(sections)
    return Diagnosis(read_machine(root), sections, usable, verdict)


def _look_at_libraries() -> Iterator[Finding]:
    packages = packages_distributions()
    for module, extra, purpose in _LIBRARIES:
        if _is_installed(module):
            # OpenCV comes in four packages, and two of them at once are trouble: name all.
            names = sorted(set(packages.get(module, ())))
            versions = ", ".join(f"{name} {version(name)}" for name in names)
            yield Finding(module, "ok", f"{versions or 'version unknown'} ({purpose})")
        else:
            advice = f'pip install "cclseg[{extra}]"'
            yield Finding(module, "absent", f"not installed ({purpose})", advice)


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _look_at_models() -> Iterator[Finding]:
    models = bundled_models()
    if not models:
        yield Finding("none", "absent", "this installation holds no models", "give a path with -m")
    for name, path in models.items():
        size_mb = path.stat().st_size / 1e6
        yield Finding(name, "ok", f"{size_mb:.1f} MB, sha256 {file_sha256(path)}")


def _try_backends() -> Iterator[Finding]:
    models = bundled_models()
    model = models.get(DEFAULT_MODEL) or next(iter(models.values()), None)
    for name in backend_names():
        try:
            yield _try_backend(name, model)
        except ImportError as error:  # ours, or that of a plug-in's library
            yield Finding(name, "absent", str(error))
        except CclsegError as error:
            yield Finding(name, "failed", str(error), "install its library again")


def _try_backend(name: str, model: Path | None) -> Finding:
    """Runs one empty tile through the bundled model."""
    backend_class = load_backend(name)
    if model is None:
        return Finding(name, "untried", "installed; no model is bundled to run on it")
    if model.suffix not in backend_class.suffixes:
        return Finding(
            name, "untried", f"installed; loads {', '.join(backend_class.suffixes)} files"
        )
    with backend_class.open(model) as backend:
        spec = backend.spec
        logits = backend.infer(np.zeros((1, len(spec.bands), *spec.input_hw), np.float32))
        if not np.isfinite(logits).all():
            return Finding(name, "failed", f"{model.stem} gives figures that are not finite")
        return Finding(name, "ok", f"ran {model.stem} on {backend.device}")


def _look_for_kernels() -> Iterator[Finding]:
    """Only networks that were exported with the correlation as one node take them."""
    for host in get_args(Host):
        if (library := find_cpu_library(host)) is not None:
            origin = "carried by the package" if library.parent == PACKAGED else "built here"
            yield Finding(host, "untried", f"{origin}: {library}")
        else:
            yield Finding(host, "absent", "not compiled", "cclseg ops build")


def _look_at_frame_kernel() -> Finding:
    """Names the form in which frames are prepared and classes named in this process."""
    name = "preparation and classes"
    chosen = f" (${CHOICE_VARIABLE})" if os.environ.get(CHOICE_VARIABLE) else ""
    try:
        kernel = frame_kernel()
    except CclsegError as error:
        return Finding(name, "failed", str(error), "no frame can be segmented until then")
    if kernel is not None:
        return Finding(name, "ok", f"compiled for {kernel.name}{chosen}: {kernel.path}")
    detail = "OpenCV and numpy, two to three times the processor time of compiled ones"
    advice = f"unset {CHOICE_VARIABLE}" if chosen else "cclseg ops build"
    return Finding(name, "absent", f"{detail}{chosen}", advice)


def _look_for_keys() -> Finding:
    """Keys that cannot be used are no consent to load every model, so nothing is loaded then."""
    try:
        pinned = pinned_keys()
        if pinned is None:
            detail = "none; every model is loaded, and engines that were built here"
            return Finding("pinned keys", "absent", detail, f"put public keys into {keys_folder()}")
        names = ", ".join(f"{key.path.name} ({key.fingerprint[:12]})" for key in pinned.load())
    except CclsegError as error:
        return Finding("pinned keys", "failed", str(error), "no model is loaded until then")
    return Finding(
        "pinned keys", "ok", f"{names} in {pinned.folder}; other than signed models are refused"
    )


def _ask_cuda() -> Finding:
    """Asks the CUDA driver itself; each way in which it can be missing has its own reason."""
    driver = read_cuda()
    if driver is None:
        return Finding("CUDA", "absent", "no NVIDIA driver (libcuda.so.1 is not there)")
    if not driver.devices:
        detail = f"the driver is there but finds no device (status {driver.status})"
        return Finding("CUDA", "failed", detail, "see what nvidia-smi says")
    devices = ", ".join(
        f"{device.name} (compute capability {device.capability[0]}.{device.capability[1]})"
        for device in driver.devices
    )
    return Finding("CUDA", "ok", f"{devices}; driver {driver.version}")


def _look_for_tensorrt() -> Iterator[Finding]:
    """Loads each library; running an engine takes one that was built here."""
    for library in get_args(Library):
        if find_module(library) is None:
            yield Finding(
                library, "absent", "not installed", missing(library).partition("run: ")[2]
            )
            continue
        try:
            release = import_library(library).__version__
        except MissingDependencyError as error:
            yield Finding(library, "failed", str(error), "install it again")
        else:
            yield Finding(library, "untried", f"{release}; builds and runs engines (cclseg build)")


def _try_video() -> Iterator[Finding]:
    """Writes a short video with each codec and reads it back."""
    if not _is_installed("cv2"):
        yield Finding("OpenCV", "absent", "not installed", 'pip install "cclseg[cpu]"')
        return
    try:
        import cv2
    except ImportError as error:
        yield Finding("OpenCV", "failed", str(error), "install opencv-python-headless instead")
        return
    for name, pattern in _CAMERA_LIBRARIES:
        there = re.search(pattern, cv2.getBuildInformation()) is not None
        detail = "in this build of OpenCV" if there else "not in this build of OpenCV"
        yield Finding(name, "ok" if there else "absent", detail)
    for name, codec in _CODECS:
        with TemporaryDirectory() as folder, _silent_stderr():
            frames = _frames_after_writing(Path(folder) / "video.mp4", codec)
        if frames == _VIDEO_FRAMES:
            yield Finding(name, "ok", "written and read back")
        else:
            yield Finding(name, "absent", "this build of OpenCV cannot write it")


def _frames_after_writing(path: Path, codec: str) -> int:
    """Writes a few frames and returns how many can be read."""
    import cv2

    frame = np.zeros((64, 64, 3), np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (64, 64))
    for _ in range(_VIDEO_FRAMES):
        writer.write(frame)
    writer.release()
    reader = cv2.VideoCapture(str(path))
    count = 0
    while reader.read()[0]:
        count += 1
    reader.release()
    return count


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keeps native libraries from writing to the terminal; they know no other way to say no."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _look_for_tools() -> Iterator[Finding]:
    for tool, flag, purpose in _TOOLS:
        path = shutil.which(tool)
        if path is None:
            yield Finding(tool, "absent", f"not found ({purpose})")
            continue
        answer = subprocess.run([path, flag], capture_output=True, text=True, check=False)
        found = re.search(r"\d+\.\d+[\w.]*", answer.stdout)
        yield Finding(tool, "ok", f"{found.group() if found else 'version unknown'} ({purpose})")


def _verdict(sections: dict[str, tuple[Finding, ...]]) -> tuple[bool, str]:
    """Says whether images can be segmented here, and what stands in the way."""
    working = {f.name for findings in sections.values() for f in findings if f.state == "ok"}
    ran = [f.name for f in sections[BACKENDS] if f.state == "ok"]
    if "cv2" not in working or not working & {"onnxruntime", "openvino"}:
        return False, 'not ready: images and networks need libraries; pip install "cclseg[cpu]"'
    if not ran and sections[MODELS][0].state == "ok":
        return False, "not ready: no backend can run the bundled model; see above"
    if sections[TRUST][0].state == "failed":
        return False, "not ready: the keys that this device trusts cannot be used; see above"
    if sections[FRAMES][0].state == "failed":
        return False, "not ready: frames cannot be prepared for a network; see above"
    gpu = "CUDA is there" if "CUDA" in working else "no NVIDIA device"
    training = "training and export too" if {"torch", "onnx"} <= working else "not training"
    subject = f"the bundled model runs on {' and '.join(ran)}" if ran else "models run from a path"
    return True, f"ready: {subject}; {training}; {gpu}"
