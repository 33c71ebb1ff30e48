"""Compiles the correlation and the frame kernels into the package while it is built.

Where no compiler is, or it refuses the sources, the package is built without: it works all the
same, and ``cclseg ops build`` compiles at any later time. CCLSEG_NO_NATIVE=1 leaves it out.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "cclseg/native/lib"
SKIP_VARIABLE = "CCLSEG_NO_NATIVE"


class NativeBuildHook(BuildHookInterface[Any]):
    """Adds the library to a wheel, which then is one for this system and processor.

    For an editable installation the library is written into the source tree.
    """

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles, and says in one line why where that is not possible."""
        if os.environ.get(SKIP_VARIABLE):
            self.app.display_info(f"no native operator: {SKIP_VARIABLE} is set")
            return
        sys.path.insert(0, str(Path(self.root) / "sdk"))
        from cclseg.errors import BackendError
        from cclseg.ops_build import build_cpu, find_cpu_library

        self._work = TemporaryDirectory(prefix="cclseg-wheel-")
        in_tree = Path(self.root) / "sdk" / FOLDER
        folder = in_tree if version == "editable" else Path(self._work.name)
        library = find_cpu_library("onnxruntime", folder)
        if library is None:
            try:
                library = build_cpu(folder, hosts=["onnxruntime"])["onnxruntime"]
            except BackendError as error:
                self.app.display_warning(f"no native operator: {error}")
                return
        if version == "editable":
            return
        build_data["pure_python"] = False
        # Any Python 3: the library is loaded by ONNX Runtime and knows nothing of Python.
        system = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{system}"
        build_data["force_include"][str(library)] = f"{FOLDER}/{library.name}"
