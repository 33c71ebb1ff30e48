"""CUDA source compiled at run time by NVIDIA's NVRTC, and kept in the user's cache folder."""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import importlib.util
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from ..errors import CudaError, MissingDependencyError, SinkError
from ..files import make_folder, write_bytes

_log = logging.getLogger(__name__)

CACHE_VARIABLE = "CCLSEG_KERNEL_CACHE"

_NAMES = ("libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12")
_PACKAGES = ("nvidia.cuda_nvrtc", "nvidia.cu13")
_NONE: Mapping[str, str] = MappingProxyType({})
_DIGEST_BYTES = 32


class Nvrtc:
    """NVIDIA's run-time compiler; needs no GPU.

    Args:
        library: The file of libnvrtc; None looks in CUDA_HOME, the nvidia-cuda-nvrtc packages and
            the system.

    Raises:
        MissingDependencyError: There is no such library.
    """

    def __init__(self, library: Path | None = None) -> None:
        candidates = [str(library)] if library else list(_candidates())
        for candidate in candidates:
            try:
                self._library = ctypes.CDLL(candidate)
                break
            except OSError:
                continue
        else:
            raise MissingDependencyError(
                "compiling CUDA kernels needs NVRTC, which was not found in "
                f"{', '.join(candidates)}; install the CUDA toolkit and set CUDA_HOME, or run: "
                "pip install nvidia-cuda-nvrtc-cu12"
            )
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor number of the CUDA release."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    def compile(
        self, source: str, *, capability: tuple[int, int], definitions: Mapping[str, str] = _NONE
    ) -> bytes:
        """Compiles one file that includes nothing.

        Args:
            source: CUDA C++.
            capability: Compute capability of the device, as (8, 7).
            definitions: Macros and their values.

        Returns:
            A cubin for :meth:`~cclseg.gpu.device.Device.module`.

        Raises:
            CudaError: The compiler refused the source or the device; its log is in the message.
        """
        program = ctypes.c_void_p()
        self._call(
            "nvrtcCreateProgram",
            ctypes.byref(program),
            source.encode(),
            b"source.cu",
            0,
            None,
            None,
        )
        try:
            options = _options(capability, definitions)
            array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            status = self._library.nvrtcCompileProgram(program, len(options), array)
            if status:
                log = self._read("nvrtcGetProgramLog", "nvrtcGetProgramLogSize", program)
                reason = self._library.nvrtcGetErrorString(status).decode()
                raise CudaError(
                    f"NVRTC {'.'.join(map(str, self.version))} refused the source for "
                    f"{options[0]}: {reason}\n{log.decode(errors='replace')}"
                )
            return self._read("nvrtcGetCUBIN", "nvrtcGetCUBINSize", program)
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def compile_once(
        self,
        source: str,
        *,
        capability: tuple[int, int],
        definitions: Mapping[str, str] = _NONE,
        folder: Path | None = None,
    ) -> bytes:
        """Returns what :meth:`compile` does, from the user's cache folder where it is there.

        An entry is found by source, macros, device and compiler, written as a whole or not at all,
        and compiled again where its bytes are not those that were written.

        Args:
            source: As in :meth:`compile`.
            capability: As in :meth:`compile`.
            definitions: As in :meth:`compile`.
            folder: The cache, None for :func:`cache_folder`.
        """
        told = repr((self.version, _options(capability, definitions), source))
        name = hashlib.sha256(told.encode()).hexdigest()
        entry = (folder or cache_folder()) / f"{name}.cubin"
        cubin = _read_entry(entry)
        if cubin is None:
            cubin = self.compile(source, capability=capability, definitions=definitions)
            try:
                write_bytes(make_folder(entry.parent) / entry.name, _sealed(cubin))
            except SinkError as error:  # a read-only system works, and compiles at every start
                _log.warning("compiled kernels are not kept: %s", error)
        return cubin

    def _read(self, getter: str, sizer: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(sizer, program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(getter, program, buffer)
        return buffer.raw

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            reason = self._library.nvrtcGetErrorString(status).decode()
            raise CudaError(f"{function} failed: {reason}")


def cache_folder() -> Path:
    """Returns where compiled kernels are kept.

    That is ``$CCLSEG_KERNEL_CACHE``, else ``cclseg/kernels`` in the user's cache folder.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "cclseg" / "kernels"


def _sealed(cubin: bytes) -> bytes:
    return hashlib.sha256(cubin).digest() + cubin


def _read_entry(path: Path) -> bytes | None:
    try:
        entry = path.read_bytes()
    except OSError:
        return None
    cubin = entry[_DIGEST_BYTES:]
    if _sealed(cubin) != entry:
        _log.info("%s is damaged; compiling it again", path)
        return None
    return cubin


def _options(capability: tuple[int, int], definitions: Mapping[str, str]) -> list[str]:
    options = [f"--gpu-architecture=sm_{capability[0]}{capability[1]}", "--std=c++17"]
    return options + [f"--define-macro={name}={value}" for name, value in definitions.items()]


def _candidates() -> Iterator[str]:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    yield from (str(Path(home) / "lib64" / name) for name in _NAMES)
    for package in _PACKAGES:
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            yield from map(str, sorted(Path(folder, "lib").glob("libnvrtc.so.*")))
    yield from _NAMES
    if found := ctypes.util.find_library("nvrtc"):
        yield found
