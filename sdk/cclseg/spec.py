"""What a model says of itself: one frozen record, carried inside the model file.

Everything that is needed to run a network travels as JSON under the key ``cclseg`` of its ONNX
metadata. Aliases in the forms of Ultralytics (``names imgsz stride task``) and of the QGIS plugin
Deepness (``model_type class_names resolution tiles_size tiles_overlap standardization_*``) stand
beside it, so that those programs open the file, and files of theirs can be read here. Values are
parsed as JSON or literals and each must have its own form (:mod:`cclseg.spec_forms`); nothing is
ever evaluated.
"""

from __future__ import annotations

import ast
import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import SpecError
from .spec_forms import check_forms

if TYPE_CHECKING:
    from collections.abc import Mapping

METADATA_KEY = "cclseg"
SCHEMA_VERSION = 1

_LONGEST = 1 << 14
"""Pixels along a side of a tile; a file that asks for more is damaged or wants the memory."""

# Distinct on screen and in print; used where a model brings class names without colours.
DEFAULT_PALETTE = (
    (230, 85, 60), (214, 187, 140), (120, 120, 130), (62, 142, 75), (58, 120, 190),
    (245, 200, 66), (150, 95, 170), (90, 195, 190), (200, 120, 160), (110, 85, 60),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything that is needed to feed a segmentation network and to read its output.

    Attributes:
        name: Short name of the model ("ccl-lite0").
        class_names: One name per class id.
        palette: One (red, green, blue) colour in 0..255 per class id.
        bands: Names of the input channels in the order that the network takes them.
        input_hw: Height and width of one input tile in pixels.
        mean: Per band, subtracted from the raw value (0..255 for uint8 images).
        std: Per band, divides the difference.
        output_stride: Input pixels per logit along each axis (4: logits are H/4 x W/4).
        overlap: Share of a tile that neighbouring tiles share along each axis, in [0, 0.9].
        ignore_index: Mask value of pixels without a class.
        precision: Numeric form of the weights ("fp32", "fp16", "int8").
        gsd_m: Ground sampling distance of the training data in metres, None if mixed or unknown.
        description: One sentence for people.
        version: Version of the weights.
        license: SPDX identifier of the weights' licence.
        trained_on: Names of the data the weights saw.
        source_sha256: Hash of the checkpoint or model file that this one was made from.
        parity: Figures that compare this file with its floating-point origin, by name.
    """

    name: str
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] = ()
    bands: tuple[str, ...] = ("red", "green", "blue")
    input_hw: tuple[int, int] = (512, 512)
    mean: tuple[float, ...] = (127.0, 127.0, 127.0)
    std: tuple[float, ...] = (128.0, 128.0, 128.0)
    output_stride: int = 4
    overlap: float = 0.25
    ignore_index: int = 255
    precision: str = "fp32"
    gsd_m: float | None = None
    description: str = ""
    version: str = "1"
    license: str = ""
    trained_on: tuple[str, ...] = ()
    source_sha256: str | None = None
    parity: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.palette:
            colours = tuple(
                DEFAULT_PALETTE[index % len(DEFAULT_PALETTE)]
                for index in range(len(self.class_names))
            )
            object.__setattr__(self, "palette", colours)
        for problem in self._problems():
            raise SpecError(f"model '{self.name}': {problem}")

    @property
    def num_classes(self) -> int:
        """Number of classes, the ignore value not counted."""
        return len(self.class_names)

    def _problems(self) -> list[str]:
        """Says what is contradictory, each as "got, expected"."""
        bands = len(self.bands)
        checks = (
            (self.class_names, "class_names is empty; expected one name per class"),
            (
                len(set(self.class_names)) == self.num_classes,
                f"class_names holds a name twice: {self.class_names}; expected distinct names",
            ),
            (
                len(self.palette) == self.num_classes,
                f"{len(self.palette)} colours for {self.num_classes} classes; expected one each",
            ),
            (
                all(len(c) == 3 and all(0 <= v <= 255 for v in c) for c in self.palette),
                f"palette {self.palette} is not a list of (r, g, b) in 0..255",
            ),
            (
                bands >= 1 and len(self.mean) == bands and len(self.std) == bands,
                f"{len(self.mean)} means and {len(self.std)} deviations for {bands} bands; "
                "expected one of each per band",
            ),
            (all(s > 0 for s in self.std), f"std {self.std} must be positive"),
            (
                len(self.input_hw) == 2
                and 1 <= min(self.input_hw) <= max(self.input_hw) <= _LONGEST,
                f"input_hw is {self.input_hw}; expected (height, width), both in 1..{_LONGEST}",
            ),
            (self.output_stride >= 1, f"output_stride is {self.output_stride}; expected >= 1"),
            (
                self.output_stride < 1 or not any(n % self.output_stride for n in self.input_hw),
                f"input_hw {self.input_hw} is not a multiple of output_stride {self.output_stride}",
            ),
            (0 <= self.overlap <= 0.9, f"overlap is {self.overlap}; expected a share in 0..0.9"),
        )
        return [text for holds, text in checks if not holds]

    def to_json(self) -> str:
        """Returns the spec as one line of JSON, keys sorted."""
        content = dataclasses.asdict(self) | {"schema": SCHEMA_VERSION}
        return json.dumps(content, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Reads what :meth:`to_json` wrote. Unknown keys of later versions are ignored.

        Raises:
            SpecError: Not JSON, a key is missing, or a value has the wrong form.
        """
        try:
            content = json.loads(text)
            json.dumps(content, allow_nan=False)
        except (ValueError, RecursionError) as error:
            raise SpecError(
                f"the model's '{METADATA_KEY}' metadata is not JSON ({error}); export it again"
            ) from error
        if not isinstance(content, dict):
            raise SpecError(
                f"the model's '{METADATA_KEY}' metadata is a {type(content).__name__}; "
                "expected a JSON object; export it again"
            )
        known = {f.name for f in dataclasses.fields(cls)}
        return cls._from_file({key: _frozen(v) for key, v in content.items() if key in known})

    @classmethod
    def _from_file(cls, values: dict[str, Any]) -> ModelSpec:
        """Makes a spec of values that anybody may have written."""
        check_forms(values)
        try:
            return cls(**values)
        except TypeError as error:
            raise SpecError(
                f"the model's '{METADATA_KEY}' metadata does not hold a model spec ({error}); "
                "export it again"
            ) from error

    def to_metadata(self) -> dict[str, str]:
        """Returns the ONNX ``metadata_props`` of this spec, aliases for other programs included."""
        names = dict(enumerate(self.class_names))
        metadata = {
            METADATA_KEY: self.to_json(),
            "names": repr(names),
            "imgsz": repr(list(self.input_hw)),
            "stride": str(self.output_stride),
            "task": "semantic",
            "model_type": json.dumps("Segmentor"),
            "class_names": json.dumps(names),
            "tiles_size": json.dumps(self.input_hw[1]),
            "tiles_overlap": json.dumps(round(self.overlap * 100)),
            "standardization_mean": json.dumps([m / 255 for m in self.mean]),
            "standardization_std": json.dumps([s / 255 for s in self.std]),
        }
        if self.gsd_m is not None:
            metadata["resolution"] = json.dumps(self.gsd_m * 100)  # centimetres per pixel
        return metadata

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, name: str) -> ModelSpec:
        """Reads a spec from ONNX metadata: ours, or the aliases that other programs write.

        Args:
            metadata: The ``metadata_props`` of the file.
            name: Name for the model where the metadata gives none, usually the file's stem.

        Raises:
            SpecError: The metadata neither holds a spec nor names the classes.
        """
        if METADATA_KEY in metadata:
            return cls.from_json(metadata[METADATA_KEY])
        class_names = _foreign_class_names(metadata)
        if class_names is None:
            found = ", ".join(sorted(metadata)) or "none"
            raise SpecError(
                f"model '{name}' does not say what its classes are (metadata keys: {found}); "
                "expected 'cclseg', 'names' or 'class_names'; give a ModelSpec: "
                "Segmenter(path, spec=ModelSpec(name=..., class_names=(...)))"
            )
        try:
            values = _foreign_values(metadata)
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, SpecError):
                raise
            raise SpecError(
                f"the metadata of model '{name}' has another form than Ultralytics or Deepness "
                f"write ({error}); correct it or give a ModelSpec"
            ) from error
        return cls._from_file({"name": name, "class_names": class_names, **values})


def _foreign_values(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Reads what other programs write beside the names of the classes."""
    values: dict[str, Any] = {}
    size = _parsed(metadata, "imgsz") or _parsed(metadata, "tiles_size")
    if size is not None:
        values["input_hw"] = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    mean, std = (_parsed(metadata, f"standardization_{key}") for key in ("mean", "std"))
    if mean is not None and std is not None:
        values["mean"] = tuple(255 * float(m) for m in mean)
        values["std"] = tuple(255 * float(s) for s in std)
        values["bands"] = tuple(f"band{i + 1}" for i in range(len(mean)))
    elif "names" in metadata:  # Ultralytics networks take value / 255
        values["mean"], values["std"] = (0.0,) * 3, (255.0,) * 3
    overlap = _parsed(metadata, "tiles_overlap")
    if overlap is not None:
        values["overlap"] = float(overlap) / 100
    return values


def _frozen(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Turns JSON lists into tuples, at every depth outside objects."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _parsed(metadata: Mapping[str, str], key: str) -> Any | None:  # noqa: ANN401 - any literal
    """Parses one metadata value as JSON or as a Python literal; None where the key is absent."""
    if key not in metadata:
        return None
    try:
        return json.loads(metadata[key])
    except (ValueError, RecursionError):
        pass  # Ultralytics writes repr() of Python literals
    try:
        return ast.literal_eval(metadata[key])
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise SpecError(
            f"the model's metadata '{key}' is {metadata[key][:60]!r}; expected JSON or a literal"
        ) from error


def _foreign_class_names(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Reads {id: name} as other programs write it, in the order of the ids."""
    names = _parsed(metadata, "names") or _parsed(metadata, "class_names")
    if isinstance(names, dict):
        try:
            return tuple(str(names[key]) for key in sorted(names, key=int))
        except (TypeError, ValueError) as error:
            raise SpecError(
                f"the model's class names are {str(names)[:60]}; expected a number before each name"
            ) from error
    if isinstance(names, (list, tuple)):
        return tuple(str(item) for item in names)
    return None
