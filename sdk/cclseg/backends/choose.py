"""Finds the backends of this machine and chooses among them by measured speed."""

from __future__ import annotations

import importlib
import logging
import time
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..built_engines import ENGINE_SUFFIXES
from ..compiled_cache import is_wanted, keep_entry, load_entry
from ..errors import BackendError, InputError, MissingDependencyError
from ..files import file_sha256
from ..suggest import did_you_mean
from ..trust import vetted
from .base import Backend, usable_threads

if TYPE_CHECKING:
    from ..spec import ModelSpec

_log = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "cclseg.backends"
_MEASURING_S = 0.3

_BUILT_IN = {
    "onnxruntime": "cclseg.backends.onnx_runtime:OnnxRuntimeBackend",
    "openvino": "cclseg.backends.open_vino:OpenVinoBackend",
    "tensorrt": "cclseg.backends.tensorrt:TensorRtBackend",
}
_BUILT_IN_SUFFIXES: dict[str, tuple[str, ...]] = {
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    **dict.fromkeys(ENGINE_SUFFIXES, ("tensorrt",)),
}


def backend_names() -> tuple[str, ...]:
    """Returns the names of all known backends, whether their libraries are installed or not."""
    plugged_in = (point.name for point in entry_points(group=ENTRY_POINT_GROUP))
    return tuple(sorted({*_BUILT_IN, *plugged_in}))


def load_backend(name: str) -> type[Backend]:
    """Imports a backend.

    Raises:
        InputError: There is no backend of this name.
        MissingDependencyError: Its library is not installed.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        built_in: type[Backend] = getattr(importlib.import_module(module), attribute)
        return built_in
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        plugged_in: type[Backend] = point.load()
        return plugged_in
    raise InputError(f"no backend '{name}'; {did_you_mean(name, ['auto', *backend_names()])}")


def open_backend(
    path: Path,
    *,
    backend: str = "auto",
    spec: ModelSpec | None = None,
    threads: int | None = None,
) -> Backend:
    """Loads a network on the named backend, or on the one that runs it fastest here.

    Where several libraries can load the file, "auto" runs the network in each for a moment and
    keeps the faster; the log says which and why. The answer is remembered in this process.

    Args:
        path: The model file.
        backend: "auto" or one of :func:`backend_names`.
        spec: Used instead of what the file says of itself where given.
        threads: Threads that one inference may use, None for all processors of this process.

    Raises:
        InputError: There is no such backend, or it does not load files of this kind.
        MissingDependencyError: No library that could load the file is installed.
        BackendError: The file is damaged, or no library can run it.
        UntrustedModelError: This device does not load it; see :mod:`cclseg.trust`.
        SpecError: The file does not describe itself, or the spec contradicts the network.
    """
    with vetted(path) as loadable:
        return open_vetted(loadable, origin=path, backend=backend, spec=spec, threads=threads)


def open_vetted(
    path: Path,
    *,
    origin: Path,
    backend: str = "auto",
    spec: ModelSpec | None = None,
    threads: int | None = None,
) -> Backend:
    """Loads a network from where :func:`cclseg.trust.vetted` says; see :func:`open_backend`.

    Args:
        path: The file to load.
        origin: The model file that was asked for.
        backend: As in :func:`open_backend`.
        spec: As in :func:`open_backend`.
        threads: As in :func:`open_backend`.
    """
    threads = usable_threads(threads)
    if backend != "auto":
        chosen = load_backend(backend)
        _check_suffix(path, chosen)
        return chosen.open(path, spec=spec, threads=threads)
    parts = _parts_of_choice(path, threads)
    kept = load_entry(*parts) if parts else None
    if kept is not None:
        return load_backend(kept.decode()).open(path, spec=spec, threads=threads)
    candidates = _installed(_names_for(path))
    if len(candidates) == 1:
        only = candidates[0]
        _log.info("%s: %s, the only backend installed for such files", path.name, only.name)
        return only.open(path, spec=spec, threads=threads)
    identity = _identity(origin, threads)
    if identity in _remembered:
        return load_backend(_remembered[identity]).open(path, spec=spec, threads=threads)
    fastest = _open_fastest(path, candidates, spec=spec, threads=threads)
    _remembered[identity] = fastest.name
    if parts:
        keep_entry(fastest.name.encode(), *parts)
    return fastest


def _parts_of_choice(path: Path, threads: int) -> tuple[object, ...]:
    """Returns what the fastest backend depends on; nothing where it is not to be kept."""
    if not is_wanted():
        return ()
    try:
        versions = [(name, version(name)) for name in _names_for(path)]
    except PackageNotFoundError:  # of a library under another name a change would not be seen
        return ()
    return ("fastest", file_sha256(path), threads, *versions)


_remembered: dict[tuple[Path, int, int, int], str] = {}


def _identity(path: Path, threads: int) -> tuple[Path, int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise BackendError(f"cannot read {path}: {error.strerror}; check the path") from error
    return path.resolve(), status.st_mtime_ns, status.st_size, threads


def _check_suffix(path: Path, backend: type[Backend]) -> None:
    if path.suffix.lower() not in backend.suffixes:
        raise InputError(
            f"the backend '{backend.name}' loads {', '.join(backend.suffixes)} files; "
            f"got {path.name}"
        )


def _names_for(path: Path) -> tuple[str, ...]:
    """Names the backends for a kind of file; plug-ins are imported only for kinds of their own."""
    if path.suffix.lower() in _BUILT_IN_SUFFIXES:
        return _BUILT_IN_SUFFIXES[path.suffix.lower()]
    plugged_in = _plugged_in_suffixes()
    names = tuple(name for name, suffixes in plugged_in if path.suffix.lower() in suffixes)
    if not names:
        known = [*_BUILT_IN_SUFFIXES, *(suffix for _, some in plugged_in for suffix in some)]
        raise InputError(
            f"no backend loads '{path.suffix}' files ({path.name}); expected {', '.join(known)}"
        )
    return names


@lru_cache(maxsize=1)
def _plugged_in_suffixes() -> tuple[tuple[str, tuple[str, ...]], ...]:
    found = []
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            found.append((point.name, load_backend(point.name).suffixes))
        except ImportError as error:  # a plug-in whose library is absent loads nothing
            _log.info("the backend '%s' is not usable: %s", point.name, error)
    return tuple(found)


def _installed(names: tuple[str, ...]) -> list[type[Backend]]:
    found, missing = [], []
    for name in names:
        try:
            found.append(load_backend(name))
        except MissingDependencyError as error:
            missing.append(error)
    if not found:
        raise missing[0]
    return found


def _open_fastest(
    path: Path, candidates: list[type[Backend]], *, spec: ModelSpec | None, threads: int
) -> Backend:
    opened: list[Backend] = []
    failures: list[BackendError] = []
    for candidate in candidates:
        try:
            opened.append(candidate.open(path, spec=spec, threads=threads))
        except BackendError as error:
            failures.append(error)
    if not opened:
        raise failures[0]
    for failure in failures:
        _log.warning("%s: %s; using %s", path.name, failure, opened[0].name)
    if len(opened) == 1:
        return opened[0]
    tile_ms = measured_ms(opened)
    fastest = min(opened, key=lambda backend: tile_ms[backend.name])
    _log.info(
        "%s: %s, the fastest here (%s a tile, %d threads)",
        path.name,
        fastest.name,
        ", ".join(f"{name} {ms:.1f} ms" for name, ms in tile_ms.items()),
        threads,
    )
    for other in opened:
        if other is not fastest:
            other.close()
    return fastest


def measured_ms(backends: list[Backend]) -> dict[str, float]:
    """Returns the best time of one tile in milliseconds on each backend, by name.

    After one warm-up each they take turns until the time is spent, at least once each, so that
    a moment of other load on the machine meets all of them.
    """
    images = np.zeros((1, len(backends[0].spec.bands), *backends[0].spec.input_hw), np.float32)
    stop_ns = time.perf_counter_ns() + round(_MEASURING_S * 1e9)
    for backend in backends:
        backend.infer(images)
    best_ms = {backend.name: float("inf") for backend in backends}
    while True:
        for backend in backends:
            start_ns = time.perf_counter_ns()
            backend.infer(images)
            elapsed_ms = (time.perf_counter_ns() - start_ns) / 1e6
            best_ms[backend.name] = min(best_ms[backend.name], elapsed_ms)
        if time.perf_counter_ns() >= stop_ns:
            return best_ms
