"""Compiles the TensorRT plugin of the local correlation, and finds what was compiled.

One source serves TensorRT 10.3 to 11 and TensorRT for RTX. Their headers are used where they are,
and are not needed: the plugin brings its own declaration of the few interfaces that it implements.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .cuda_devices import read_cuda
from .errors import BackendError
from .files import make_folder, replacing

logger = logging.getLogger(__name__)

ROOT_VARIABLE = "TENSORRT_ROOT"
"""Environment variable that names the folder in which TensorRT was unpacked."""

_NATIVE = Path(__file__).parent / "native"
_SOURCE = _NATIVE / "tensorrt" / "local_correlation_plugin.cu"

# Compiled for where there is no device to ask: Turing, Orin, Ada, Hopper, Blackwell in the data
# centre, Thor, Blackwell on the desk.
_ARCHITECTURES = (75, 87, 89, 90, 100, 110, 120)

_USUAL_HOME = Path("/usr/local/cuda")
_NVCC_PACKAGE = "nvidia.cu13"  # what the package cuda-toolkit[nvcc] fills

_SYSTEM_FOLDERS = (
    f"/usr/include/{platform.machine()}-linux-gnu",
    "/usr/include",
    "/usr/local/tensorrt/include",
)


def find_tensorrt_library(folder: Path) -> Path | None:
    """Returns the compiled plugin in ``folder``, None where these sources were not compiled."""
    path = folder / _library_name()
    return path if path.is_file() else None


def build_tensorrt(folder: Path, *, architectures: Sequence[int] | None = None) -> Path:
    """Compiles the plugin with nvcc; takes a minute or more.

    What the compiler says of each kernel's registers and shared memory is logged for debugging.

    Args:
        folder: Where the library is written.
        architectures: Compute capabilities without the point (87 for Orin); None for the devices
            of this machine, or where it has none, for all that nvcc knows of the supported ones.

    Returns:
        The library, to be given to trtexec as ``--staticPlugins`` or to a plugin registry.

    Raises:
        BackendError: nvcc is missing, too old, or refused the source; or ``$TENSORRT_ROOT`` holds
            no headers.
        SinkError: The folder cannot be written to.
    """
    nvcc = find_nvcc()
    known = _known_architectures(nvcc)
    if architectures is None:
        architectures = _architectures_of_devices() or [a for a in _ARCHITECTURES if a in known]
    if unknown := sorted(set(architectures) - known) or not architectures:
        raise BackendError(
            f"{nvcc} does not compile for sm_{unknown}; it knows {sorted(known)}: choose among "
            "them, or install a CUDA toolkit that fits the device"
        )
    library = make_folder(folder) / _library_name()
    with replacing(library) as temporary:
        flags = (*_flags(sorted(set(architectures))), *_runtime_flags(nvcc))
        _run([nvcc, *flags, str(_SOURCE), "-o", str(temporary)])
    return library


def find_nvcc() -> str:
    """Returns CUDA's compiler.

    It is that of ``$CUDA_HOME``, on the path, in its usual folder, or of the Python package
    ``cuda-toolkit[nvcc]``.

    Raises:
        BackendError: There is none.
    """
    home = os.environ.get("CUDA_HOME")
    first = [str(Path(home) / "bin")] if home else []
    last = [str(root / "bin") for root in (_USUAL_HOME, *_package_folders())]
    path = os.pathsep.join([*first, os.environ.get("PATH", ""), *last])
    if found := shutil.which("nvcc", path=path):
        return found
    raise BackendError(
        "found no nvcc; install the CUDA toolkit (JetPack: apt install cuda-toolkit) and set "
        "CUDA_HOME, or run: pip install 'cuda-toolkit[nvcc]==13.0.*'. Networks run in TensorRT "
        "without the plugin, as standard operators"
    )


def find_headers() -> Path | None:
    """Returns the folder of TensorRT's headers, None where it is not installed.

    Raises:
        BackendError: ``$TENSORRT_ROOT`` is set and holds no headers.
    """
    if root := os.environ.get(ROOT_VARIABLE):
        for folder in (Path(root) / "include", *Path(root).glob("targets/*/include")):
            if (folder / "NvInferRuntime.h").is_file():
                return folder
        raise BackendError(
            f"{ROOT_VARIABLE} is {root}, which holds no include/NvInferRuntime.h; name the folder "
            "in which TensorRT was unpacked, or unset it to compile without TensorRT's headers"
        )
    found = (Path(folder) for folder in _SYSTEM_FOLDERS)
    return next((folder for folder in found if (folder / "NvInferRuntime.h").is_file()), None)


def _flags(architectures: Sequence[int]) -> list[str]:
    flags = ["-std=c++17", "-O3", "-shared", "-cudart=static", "--threads=0",
             "-Xptxas=-v", "-Xcompiler=-fPIC,-fvisibility=hidden"]  # fmt: skip
    for architecture in architectures:
        flags.append(f"-gencode=arch=compute_{architecture},code=sm_{architecture}")
    # Newer devices compile this themselves when the plugin is loaded.
    flags.append(f"-gencode=arch=compute_{architectures[-1]},code=compute_{architectures[-1]}")
    if headers := find_headers():
        flags += ["-DCCLSEG_TENSORRT_HEADERS", "-isystem", str(headers)]
    return flags


def _package_folders() -> list[Path]:
    try:
        spec = importlib.util.find_spec(_NVCC_PACKAGE)
    except ModuleNotFoundError:  # there is no package named nvidia at all
        return []
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def _runtime_flags(nvcc: str) -> list[str]:
    """Names the folder of CUDA's runtime library where nvcc itself looks for it elsewhere."""
    folder = Path(nvcc).parent.parent / "lib"
    return [f"-L{folder}"] if (folder / "libcudart_static.a").is_file() else []


def _architectures_of_devices() -> list[int]:
    driver = read_cuda()
    capabilities = [device.capability for device in driver.devices] if driver else []
    return [10 * major + minor for major, minor in capabilities]


def _known_architectures(nvcc: str) -> set[int]:
    return set(map(int, re.findall(r"compute_(\d+)\b", _run([nvcc, "--list-gpu-arch"]))))


def _library_name() -> str:
    """Names the library after its sources, so that a stale one is never loaded."""
    digest = hashlib.sha256()
    # The image kernels beside them are none of the plugin's.
    cuda = [_NATIVE / "cuda" / name for name in ("emulation.h", "launch.h", "local_correlation.cu")]
    for path in sorted((*cuda, *_NATIVE.glob("tensorrt/*"))):
        digest.update(path.read_bytes())
    return f"libcclseg_tensorrt-{digest.hexdigest()[:12]}.so"


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).splitlines()
        first = next((line for line in lines if "error" in line), "it printed nothing")
        raise BackendError(
            f"{command[0]} failed with status {done.returncode}: {first}; try another CUDA toolkit "
            "by setting CUDA_HOME"
        )
    logger.debug("%s", done.stderr)
    return done.stdout
