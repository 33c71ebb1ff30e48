"""The models that come with the package, as self-describing ONNX files in this folder."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..suggest import did_you_mean

DEFAULT_MODEL = "ccl-lite0"
_SMALLER = {"ccl-lite0": "ccl-nano"}


def bundled_models() -> dict[str, Path]:
    """Returns the file of each bundled model by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.onnx"))}


def bundled_digests() -> frozenset[str]:
    """Returns the SHA-256 of the bundled models, as the package was released with them."""
    lines = (Path(__file__).parent / "SHA256SUMS").read_text().splitlines()
    return frozenset(line.split()[0] for line in lines)


def smaller_model(model: str | Path) -> Path | None:
    """Returns the file of a bundled model with the same classes that costs less, if there is one.

    Args:
        model: Name of a bundled model, or a path, which has none.
    """
    return bundled_models().get(_SMALLER.get(str(model), ""))


def find_model(model: str | Path) -> Path:
    """Returns the file of a model given by bundled name or by path.

    Raises:
        InputError: Neither a bundled name nor a file.
    """
    bundled = bundled_models()
    if str(model) in bundled:
        return bundled[str(model)]
    path = Path(model)
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        found = "a folder" if path.is_dir() else "no such file"
        raise InputError(f"model {path}: {found}; expected a model file or a bundled name")
    if not bundled:
        raise InputError(
            f"no model '{model}': this installation holds no bundled models; give a path"
        )
    raise InputError(f"no model '{model}'; {did_you_mean(str(model), bundled)}")
