"""The wheel: what is in it, and what it does on a machine where numpy is all there is."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_string
from email.message import Message
from importlib.metadata import distribution
from pathlib import Path

import pytest

import cclseg
from cclseg.errors import BackendError
from cclseg.ops_build import find_compiler

ROOT = Path(__file__).parent.parent
LIBRARIES = "cclseg/native/lib"
PACKAGES = {"cclseg": "sdk", "cclseg_trainer": "trainer", "cclseg_export": "export"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by pip from this checkout without asking an index for anything."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    words = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, ROOT]
    subprocess.run(words, check=True)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def about(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return message_from_string(archive.read(name).decode())


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that holds numpy and the wheel, nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    numpy = distribution("numpy")
    installed = Path(str(numpy.locate_file("")))
    for name in {path.parts[0] for path in numpy.files or () if path.parts[0] != ".."}:
        (packages / name).symlink_to(installed / name)
    words = f"-m pip --python {folder} install --quiet --no-deps --no-index".split()
    subprocess.run([sys.executable, *words, wheel], check=True)
    return folder / "bin"


@pytest.fixture(scope="module")
def wheel_without_compiler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a machine that has no compiler, or at least none on its path."""
    folder = tmp_path_factory.mktemp("no-compiler")
    words = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
    done = subprocess.run(
        words, cwd=ROOT, env={"PATH": str(folder)}, capture_output=True, text=True, check=True
    )
    (line,) = (line for line in done.stderr.splitlines() if "native operator" in line)
    assert "install one" in line
    (path,) = folder.iterdir()
    return path


def _run(bare: Path, code: str) -> str:
    words = [bare / "python", "-I", "-c", code]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {n for n in archive.namelist() if ".dist-info/" not in n}
    written = {
        str(path.relative_to(ROOT / folder))
        for package, folder in PACKAGES.items()
        for path in (ROOT / folder / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    libraries = {name for name in packed | written if name.startswith(LIBRARIES)}
    assert packed - libraries == written - libraries
    assert {f"{package}/py.typed" for package in PACKAGES} <= packed


def test_the_wheel_carries_the_sources_of_the_native_operator(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {n.partition("cclseg/native/")[2] for n in archive.namelist()}
    assert {
        "cpu/kernel.h", "cpu/ort_op.cpp", "cpu/openvino_extension.cpp",
        "cuda/local_correlation.cu", "tensorrt/local_correlation_plugin.cu",
    } <= packed  # fmt: skip


def test_a_wheel_built_with_a_compiler_carries_the_operator(wheel: Path, bare: Path) -> None:
    try:
        find_compiler()
    except BackendError as error:
        pytest.skip(str(error))
    assert re.search(r"-py3-none-linux_\w+\.whl$", wheel.name)
    code = (
        "import ctypes, os; from cclseg.ops_build import find_cpu_library;"
        "os.environ['XDG_CACHE_HOME'] = '/nothing/here'; os.environ.pop('CCLSEG_NATIVE_DIR', None);"
        "path = find_cpu_library('onnxruntime'); ctypes.CDLL(str(path)).RegisterCustomOps;"
        "print(path.parent.relative_to(path.parents[3]), len(list(path.parent.iterdir())))"
    )
    assert _run(bare, code) == f"{LIBRARIES} 1"


def test_a_wheel_built_without_a_compiler_runs_anywhere(wheel_without_compiler: Path) -> None:
    assert wheel_without_compiler.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel_without_compiler) as archive:
        assert not [name for name in archive.namelist() if name.startswith(LIBRARIES)]


def test_the_wheel_carries_the_licence(wheel: Path, about: Message) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/licenses/LICENSE"))
        assert archive.read(name) == (ROOT / "LICENSE").read_bytes()
    assert about["License-Expression"] == "Apache-2.0"


def test_the_runtime_asks_for_numpy_alone(about: Message) -> None:
    required = [text for text in about.get_all("Requires-Dist", []) if "extra ==" not in text]
    assert [re.split(r"[^\w-]", text)[0] for text in required] == ["numpy"]


def test_the_version_is_that_of_the_package_and_of_the_changelog(about: Message) -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    first = re.search(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)
    assert first is not None
    assert about["Version"] == cclseg.__version__ == first.group(1)


def test_every_extra_that_a_message_names_exists(about: Message) -> None:
    sources = [path for folder in PACKAGES.values() for path in (ROOT / folder).rglob("*.py")]
    text = "\n".join(path.read_text() for path in sources)
    named = set(re.findall(r'extra="(\w+)"', text)) | set(re.findall(r"cclseg\[(\w+)\]", text))
    assert named
    assert named <= set(about.get_all("Provides-Extra", []))


def test_import_needs_numpy_and_the_standard_library_alone(bare: Path) -> None:
    code = (
        "import sys; before = set(sys.modules); import cclseg;"
        "tops = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(*sorted(tops - set(sys.stdlib_module_names)))"
    )
    assert set(_run(bare, code).split()) <= {"cclseg", "numpy"}


def test_every_module_imports_or_names_the_extra_it_needs(bare: Path) -> None:
    code = """
import importlib, pkgutil, cclseg
from cclseg.errors import MissingDependencyError
for module in pkgutil.walk_packages(cclseg.__path__, "cclseg."):
    if module.name.startswith("cclseg.cli.") or module.name.endswith("__main__"):
        continue  # click is asked for by cclseg.cli.main
    try:
        importlib.import_module(module.name)
    except MissingDependencyError as error:
        assert "pip install" in str(error), error
        print("needs", module.name)
    else:
        print("imports", module.name)
"""
    lines = _run(bare, code).splitlines()
    assert "imports cclseg.spec" in lines
    assert "needs cclseg.image_files" in lines


def test_the_program_without_its_libraries_says_what_to_install(bare: Path) -> None:
    done = subprocess.run([bare / "cclseg", "demo"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "error: the command line needs the library 'click', which is not installed; "
        'run: pip install "cclseg[cpu]"\n'
    )


def test_the_doctor_without_libraries_says_what_to_install(bare: Path) -> None:
    code = "from cclseg.doctor import diagnose; d = diagnose(); print(d.usable, d.verdict)"
    said = _run(bare, code)
    assert said.startswith("False not ready: ")
    assert said.endswith('pip install "cclseg[cpu]"')


def test_the_source_archive_can_build_and_test_itself(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "hatchling", "build", "--target", "sdist"]
    subprocess.run([*words, "--directory", tmp_path], cwd=ROOT, check=True, capture_output=True)
    (path,) = tmp_path.iterdir()
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"Makefile", "pyproject.toml", "constraints.txt", "build_native.py", "LICENSE"}
    assert needed <= names
    assert not [name for name in names if name.startswith((".venv", ".git/"))]
