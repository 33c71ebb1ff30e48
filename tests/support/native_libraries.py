"""The compiled operator for tests: built once, kept until its sources change."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from cclseg import ops_build
from cclseg.errors import BackendError

FOLDER = Path(__file__).parents[2] / ".pytest_cache" / "cclseg-native"


@cache
def native_library(host):
    """Returns the path of the library for a host, and skips where no compiler is."""
    if found := ops_build.find_cpu_library(host, FOLDER):
        return found
    try:
        ops_build.find_compiler()
    except BackendError as error:
        pytest.skip(str(error))
    return ops_build.build_cpu(FOLDER, hosts=[host])[host]
