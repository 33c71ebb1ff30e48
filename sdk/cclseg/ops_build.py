"""Compiles the native code for this machine, and finds what was compiled.

That is the local correlation, and in the same library the kernels around the network (see
:mod:`cclseg.frame_kernels`). The package's own build does this for ONNX Runtime where a compiler
is, ``cclseg ops build`` for all libraries at any later time. A network runs without it, only
slower: each exported file holds the operator as standard operators, too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from .errors import BackendError
from .files import make_folder, replacing
from .machine import read_machine

Host = Literal["onnxruntime", "openvino"]
"""A library that runs networks and can load the operator."""

OPERATOR = "cclseg.LocalCorrelation"
"""What the libraries compute, as :attr:`cclseg.onnx_file.OnnxFile.op_counts` names it."""

FOLDER_VARIABLE = "CCLSEG_NATIVE_DIR"
"""Environment variable that names the one folder of compiled libraries."""

SOURCES = Path(__file__).parent / "native" / "cpu"
PACKAGED = Path(__file__).parent / "native" / "lib"
"""Where the package carries what its own build compiled; no such folder where it did not."""

# No -ffast-math: with some compilers, a library linked with it changes how the whole process
# rounds tiny numbers.
_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-Wall")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma")


@dataclass(frozen=True, slots=True)
class Source:
    """One compilation: a source file and the flags that only it gets."""

    name: str
    flags: tuple[str, ...] = ()

    @property
    def object_name(self) -> str:
        """Name of the object file; a source may be compiled twice."""
        return "".join((Path(self.name).stem, *self.flags[-1:], ".o"))


_ROUNDED = "-ffp-contract=off"  # sums are rounded as numpy rounds them
_COMMON = (
    Source("correlation.cpp"),
    Source("c_api.cpp"),
    Source("isa_portable.cpp"),
    Source("frame.cpp"),
    Source("frame_isa.cpp", (_ROUNDED,)),
)
_KERNELS = {
    "x86_64": (
        Source("frame_isa.cpp", (_ROUNDED, "-mavx2")),
        Source("frame_isa.cpp", (_ROUNDED, *_AVX512)),
        Source("isa_avx2.cpp", ("-mavx2", "-mfma")),
        Source("isa_avx512.cpp", _AVX512),
        Source("isa_avx512.cpp", (*_AVX512, "-mavx512vnni")),
    ),
    "aarch64": (
        Source("isa_neon.cpp"),
        Source("isa_neon.cpp", ("-march=armv8.2-a+dotprod",)),
    ),
}
_HOST_SOURCES: dict[Host, Source] = {
    "onnxruntime": Source("ort_op.cpp"),
    "openvino": Source("openvino_extension.cpp"),
}


def native_folder() -> Path:
    """Returns where compiled libraries are written and looked for.

    That is ``$CCLSEG_NATIVE_DIR``, else ``cclseg/native`` in the user's cache folder.
    """
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "cclseg" / "native"


def find_cpu_library(host: Host, folder: Path | None = None) -> Path | None:
    """Returns the operator for a library that runs networks, None where it was not compiled.

    What was compiled from other sources, or against another OpenVINO, is not found.

    Args:
        host: The library that shall load it.
        folder: Where to look; None for :func:`native_folder`, which the user writes to, and then
            :data:`PACKAGED`, unless the user names the one folder by :data:`FOLDER_VARIABLE`.
    """
    if host == "openvino" and importlib.util.find_spec("openvino") is None:
        return None
    name = _library_name(host)
    folders = [folder or native_folder()]
    if folder is None and not os.environ.get(FOLDER_VARIABLE):
        folders.append(PACKAGED)
    return next((path for place in folders if (path := place / name).is_file()), None)


def build_cpu(
    folder: Path | None = None,
    *,
    hosts: Sequence[Host] | None = None,
    extra_flags: Sequence[str] = (),
    progress: Callable[[str, int], None] | None = None,
) -> dict[Host, Path]:
    """Compiles the operator for the CPU.

    Args:
        folder: Where the libraries are written; None for :func:`native_folder`.
        hosts: What to compile for; None for those that are installed (ONNX Runtime's library
            needs nothing of it and is always among them).
        extra_flags: Further flags of the compiler, such as those of a sanitizer.
        progress: Called with what is compiled next and the number of steps that follow.

    Returns:
        The written library of each host.

    Raises:
        BackendError: There is no C++ compiler, or it refused the sources.
        SinkError: The folder cannot be written to.
    """
    hosts = _installed_hosts() if hosts is None else hosts
    compiler = find_compiler()
    folder = make_folder(folder or native_folder())
    flags = {host: (*_host_flags(host), *extra_flags) for host in hosts}
    jobs = [
        *((_HOST_SOURCES[host], flags[host]) for host in hosts),  # the longest first
        *((source, tuple(extra_flags)) for source in (*_kernels_for(compiler), *_COMMON)),
    ]
    libraries: dict[Host, Path] = {}
    with TemporaryDirectory(prefix="cclseg-ops-") as work:
        objects = _compile_all(compiler, jobs, Path(work), progress)
        shared = objects[len(hosts) :]
        for host, glue in zip(hosts, objects, strict=False):
            libraries[host] = folder / _library_name(host)
            with replacing(libraries[host]) as temporary:
                link(compiler, [glue, *shared], temporary, (*flags[host], *_host_libraries(host)))
    return libraries


def _compile_all(
    compiler: str,
    jobs: Sequence[tuple[Source, Sequence[str]]],
    work: Path,
    progress: Callable[[str, int], None] | None,
) -> list[Path]:
    """Compiles sources, each with further flags, on all processors; returns the object files."""
    with ThreadPoolExecutor(read_machine().cores) as pool:
        running = [pool.submit(compile_source, compiler, job[0], work, job[1]) for job in jobs]
        try:
            objects: list[Path] = []
            for (source, _), future in zip(jobs, running, strict=True):
                _tell(progress, source, len(jobs) - len(objects) - 1)
                objects.append(future.result())
            return objects
        finally:
            pool.shutdown(cancel_futures=True)  # after an error nothing more is begun


def compile_kernels(
    compiler: str, driver: Path, program: Path, extra_flags: Sequence[str] = ()
) -> None:
    """Compiles a program of its own around the kernels, for processors of another kind.

    Args:
        compiler: A C++ compiler; the kernels are those of the processor it compiles for.
        driver: Source file with ``main``, that calls the functions of ``c_api.cpp``.
        program: Where the program is written.
        extra_flags: Further flags, such as ``-static``.

    Raises:
        BackendError: The compiler refused the sources.
    """
    with TemporaryDirectory(prefix="cclseg-ops-") as work:
        objects = [
            compile_source(compiler, source, Path(work), extra_flags)
            for source in (*_COMMON, *_kernels_for(compiler))
        ]
        run_compiler([compiler, *_FLAGS, *extra_flags, str(driver), *map(str, objects),
                      "-o", str(program)])  # fmt: skip


def find_compiler() -> str:
    """Returns the C++ compiler: ``$CXX``, else the first one on the path.

    Raises:
        BackendError: There is none.
    """
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        if name and (path := shutil.which(name)):
            return path
    raise BackendError(
        "found no C++ compiler; install one (Debian, Ubuntu, JetPack: apt install g++) or name it "
        "in CXX. Networks run without the native operator, only slower"
    )


def compile_source(
    compiler: str, source: Source, work: Path, extra_flags: Sequence[str] = ()
) -> Path:
    """Compiles one source file into ``work`` and returns the object file."""
    target = work / source.object_name
    run_compiler([compiler, *_FLAGS, *source.flags, *extra_flags,
                  "-c", str(SOURCES / source.name), "-o", str(target)])  # fmt: skip
    return target


def link(compiler: str, objects: Sequence[Path], library: Path, flags: Sequence[str] = ()) -> None:
    """Links object files to a shared library."""
    run_compiler([compiler, "-shared", *map(str, objects), "-o", str(library), *flags])


def run_compiler(command: Sequence[str]) -> str:
    """Runs a compiler and returns what it printed.

    Raises:
        BackendError: It failed; the message holds its first error.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.splitlines()
        first = next((line for line in lines if "error" in line), "it printed nothing")
        raise BackendError(
            f"{command[0]} failed with status {done.returncode}: {first}; try a newer compiler by "
            "setting CXX"
        )
    return done.stdout


def _kernels_for(compiler: str) -> tuple[Source, ...]:
    """Returns the kernels of the processor that a compiler compiles for."""
    machine = run_compiler([compiler, "-dumpmachine"]).split("-")[0]
    return _KERNELS.get(machine, ())


def _installed_hosts() -> list[Host]:
    hosts: list[Host] = ["onnxruntime"]
    if importlib.util.find_spec("openvino") is not None:
        hosts.append("openvino")
    return hosts


def _library_name(host: Host) -> str:
    """Names a library after what it was made from, so that a stale one is never loaded."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.glob("*.[ch]*")):
        digest.update(path.read_bytes())
    made_for = f"openvino-{version('openvino')}" if host == "openvino" else host
    return f"libcclseg_{made_for}-{digest.hexdigest()[:12]}.so"


def _host_flags(host: Host) -> tuple[str, ...]:
    """Names the headers of a host; ONNX Runtime's are declared by ourselves."""
    return ("-isystem", str(_openvino_folder() / "include")) if host == "openvino" else ()


def _host_libraries(host: Host) -> tuple[str, ...]:
    if host != "openvino":
        return ()
    folder = _openvino_folder() / "libs"
    wanted = ("libopenvino.so.*", "libopenvino_onnx_frontend.so.*", "libtbb.so.*")
    paths = [str(next(iter(sorted(folder.glob(pattern))))) for pattern in wanted]
    return (*paths, f"-Wl,-rpath,{folder}")


def _openvino_folder() -> Path:
    spec = importlib.util.find_spec("openvino")
    if spec is None or spec.origin is None:
        raise BackendError(
            "OpenVINO is not installed, so nothing can be compiled for it; run: "
            'pip install "cclseg[cpu]"'
        )
    folder = Path(spec.origin).parent
    if not (folder / "include").is_dir():
        raise BackendError(
            f"OpenVINO in {folder} brings no headers; install the package of the package index, or "
            "compile for ONNX Runtime alone"
        )
    return folder


def _tell(progress: Callable[[str, int], None] | None, source: Source, left: int) -> None:
    if progress is not None:
        progress(source.name, left)
