"""The public names and signatures: what programs may rely on, so a change here is a decision."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import cclseg
from cclseg import errors
from cclseg.cli.app import COMMANDS_GROUP
from cclseg.spec import METADATA_KEY


def test_public_names() -> None:
    assert sorted(cclseg.__all__) == [
        "Frame",
        "ModelSpec",
        "Segmentation",
        "Segmenter",
        "open_sink",
        "open_source",
    ]


def test_public_names_are_what_they_are_called() -> None:
    for name in cclseg.__all__:
        assert getattr(cclseg, name).__name__ == name
        assert name in dir(cclseg)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        cclseg.Segmentor  # noqa: B018 - the access is what is tested


def test_import_of_the_package_alone_loads_none_of_its_libraries() -> None:
    code = "import sys, cclseg; print({'cv2', 'onnxruntime', 'openvino'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_segmenter_takes_what_the_contract_says() -> None:
    parameters = inspect.signature(cclseg.Segmenter).parameters
    defaults = {name: p.default for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert next(iter(parameters)) == "model"
    assert defaults == {
        "backend": "auto",
        "device": "auto",
        "precision": "auto",
        "tile": None,
        "overlap": None,
        "refine": "off",
        "temporal": "off",
        "threads": None,
        "budget_ms": None,
        "tta": "none",
        "spec": None,
    }


def test_the_result_has_what_the_contract_says() -> None:
    attributes = {"mask", "confidence", "class_names", "timing"}
    methods = {"fractions", "overlay", "polygons", "save"}
    assert attributes | methods <= set(dir(cclseg.Segmentation))


def test_the_error_tree() -> None:
    tree = {
        name: tuple(base.__name__ for base in kind.__bases__)
        for name, kind in vars(errors).items()
        if inspect.isclass(kind)
    }
    assert tree == {
        "CclsegError": ("Exception",),
        "SpecError": ("CclsegError", "ValueError"),
        "InputError": ("CclsegError", "ValueError"),
        "DatasetError": ("InputError",),
        "SourceError": ("CclsegError", "OSError"),
        "SinkError": ("CclsegError", "OSError"),
        "BackendError": ("CclsegError", "RuntimeError"),
        "EngineMismatchError": ("BackendError",),
        "UntrustedModelError": ("BackendError",),
        "CudaError": ("BackendError",),
        "MissingDependencyError": ("CclsegError", "ImportError"),
    }


def test_names_that_other_packages_and_files_carry() -> None:
    from cclseg.backends.choose import ENTRY_POINT_GROUP

    assert COMMANDS_GROUP == "cclseg.commands"
    assert ENTRY_POINT_GROUP == "cclseg.backends"
    assert METADATA_KEY == "cclseg"
